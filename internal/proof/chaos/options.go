//go:build unix

package chaos

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// Options of a run. The zero value breaks three nodes in every way that this
// machine allows, for a minute.
type Options struct {
	Binary   string        // the locknode executable; default: the one that runs now
	Nodes    int           // default 3
	Dir      string        // for data, logs and histories; default: a temporary directory
	Faults   []string      // names of kinds; default, or "all": all of them
	Duration time.Duration // default a minute; the fault that is under way is seen to its end
	Cycles   int           // if not 0, end after so many faults, whatever Duration says
	Seed     uint64        // of the schedule
	Clients  int           // client processes; default 2
	Timing   time.Duration // of the nodes; default: theirs
	LogStore string        // of the nodes; default: theirs
	Netns    bool          // cut networks between namespaces, in one of which this process is
	Faultfs  string        // the program of faulty disks; default: one that is found

	// RecoveryBound is how long the slowest probing client may take to finish a
	// cycle once a majority of the nodes can work. Default 1 s. Some kinds have a
	// longer bound of their own, see [Kind].
	RecoveryBound time.Duration

	// Progress is called about ten times a second, if it is set.
	Progress func(Progress)

	all bool // nobody has named kinds: those that are impossible here are left out
}

// Progress is how far a run is.
type Progress struct {
	Faults     int // so far
	Operations int64
	Violations int
	Left       time.Duration // negative: unknown
	Doing      string        // what is being done
}

const (
	defaultDuration = time.Minute
	defaultBound    = time.Second
	// roundLength is how long client processes run before what they recorded is
	// checked: it bounds what has to be kept and searched.
	roundLength = 2 * time.Minute
	// restLeast and restMost are how long all is well between two faults.
	restLeast, restMost = 200 * time.Millisecond, 600 * time.Millisecond
	// workerPace keeps the load where three nodes, clients and the checks have
	// room on a small machine: the nodes are to be broken, not to be worn out.
	workerPace = 30 * time.Millisecond
)

// Validate reports every fault of the options at once, each with what is allowed.
func (o Options) Validate() error { return o.complete() }

// complete fills in what is not set, and reports every fault at once.
func (o *Options) complete() error {
	var faults []error
	bad := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if o.Binary == "" {
		self, err := os.Executable()
		if err != nil {
			bad("find the executable: %w", err)
		}
		o.Binary = self
	}
	for _, d := range []struct {
		value *time.Duration
		def   time.Duration
	}{{&o.Duration, defaultDuration}, {&o.RecoveryBound, defaultBound}} {
		if *d.value == 0 {
			*d.value = d.def
		}
	}
	if o.Nodes == 0 {
		o.Nodes = 3
	}
	if o.Clients == 0 {
		o.Clients = 2
	}
	if o.Nodes < 3 || o.Nodes > 9 {
		bad("nodes %d: 3 to 9 are allowed", o.Nodes)
	}
	if o.Clients < 1 || o.Clients > 20 {
		bad("clients %d: 1 to 20 are allowed", o.Clients)
	}
	if o.Duration < 0 {
		bad("duration %v: a positive one is allowed", o.Duration)
	}
	if o.Cycles < 0 {
		bad("cycles %d: a positive number is allowed, or 0 for no limit", o.Cycles)
	}
	if o.RecoveryBound < 0 {
		bad("recovery bound %v: a positive one is allowed", o.RecoveryBound)
	}
	o.all = len(o.Faults) == 0 || slices.Equal(o.Faults, []string{"all"})
	if o.all {
		o.Faults = nil
		for _, k := range Kinds() {
			if !k.unpromised {
				o.Faults = append(o.Faults, k.Name)
			}
		}
	}
	for _, name := range o.Faults {
		if _, ok := kindNamed(name); !ok {
			bad("fault %q: allowed: all, %s", name, strings.Join(kindNames(), ", "))
		}
	}
	return errors.Join(faults...)
}
