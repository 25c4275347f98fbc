package simulation

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/locknode/locknode/fsm"
)

// Plan is what one run does.
type Plan struct {
	Seed     uint64        `json:"seed"`
	Profile  string        `json:"profile"`
	Duration time.Duration `json:"duration"` // of load and faults; settling comes after it

	Nodes     int           `json:"nodes"`
	Timing    time.Duration `json:"timing"`          // heartbeat and election timeout
	LongLease string        `json:"lease,omitempty"` // node that leads on when the others have given it up
	Latency   time.Duration `json:"latency"`
	Jitter    time.Duration `json:"jitter"`
	// Disks is how long each write takes on the disk of a node: no time where it is missing.
	Disks     map[string]time.Duration `json:"disks,omitempty"`
	Snapshots uint64                   `json:"snapshots"` // entries between snapshots
	Locks     int                      `json:"locks"`
	MaxExpiry int                      `json:"max_expiry"`       // limit on what one entry ends by time
	Window    int                      `json:"window,omitempty"` // limit on the answers remembered for a session; 0: the usual one
	Onces     int                      `json:"onces,omitempty"`  // limit on the IDs remembered; 0: the usual one
	Limits    fsm.Limits               `json:"limits,omitzero"`  // the others; those above count

	Workers  []Worker           `json:"workers"`
	Rates    map[string]float64 `json:"rates"` // name → rate of its monotonic clock
	Episodes []Episode          `json:"episodes"`
}

// Worker is one client.
type Worker struct {
	Name  string        `json:"name"`
	TTL   time.Duration `json:"ttl"`           // of its session
	Pace  time.Duration `json:"pace"`          // between two deeds, on average
	Lines int           `json:"lines"`         // goroutines that work at once
	Job   string        `json:"job,omitempty"` // one of jobs; empty: all sorts of things
}

// Episode is a time of faults. At its end everything is mended, and the cluster
// has to recover.
type Episode struct {
	At    time.Duration `json:"at"`
	For   time.Duration `json:"for"`
	Steps []Step        `json:"steps"`
}

// Step is one fault.
type Step struct {
	Kind   string        `json:"kind"`
	After  time.Duration `json:"after"` // the episode's begin
	For    time.Duration `json:"for"`   // then it is lifted, at the latest with the episode
	Who    string        `json:"who,omitempty"`
	Other  string        `json:"other,omitempty"`
	Amount time.Duration `json:"amount,omitempty"`
}

// Profiles are the kinds of runs. Those after the first five have the name of the
// job that is done in them, but for "addresses", "misled" and "disks".
var Profiles = []string{"mixed", "tight", "modes", "wide", "five", "scripts", "masses", "crowd", "trees", "delays", "embedded", "reads", "addresses", "greedy", "misled", "disks", "rights"}

// lightJobs are done beside others, too.
var lightJobs = []string{"scripts", "masses", "values", "trees", "delays", "embedded", "reads"}

// besideGreed are those jobs that need little of anything.
var besideGreed = []string{"delays", "embedded", "reads", "greedy"}

// NewPlan returns the plan of a seed. Without a profile the seed chooses one.
func NewPlan(seed uint64, profile string, duration time.Duration) (Plan, error) {
	if profile == "" {
		profile = Profiles[seed%uint64(len(Profiles))]
	}
	if !slices.Contains(Profiles, profile) {
		return Plan{}, fmt.Errorf("profile %q: %s are there", profile, strings.Join(Profiles, ", "))
	}
	if duration < 10*time.Second || duration > 24*time.Hour {
		return Plan{}, fmt.Errorf("duration %v: 10s to 24h are allowed", duration)
	}
	r := rand.New(rand.NewPCG(seed, 0x9e3779b97f4a7c15))
	p := Plan{
		Seed: seed, Profile: profile, Duration: duration, Nodes: 3, Rates: map[string]float64{},
		Timing: 200 * time.Millisecond, Latency: between(r, 50*time.Microsecond, time.Millisecond),
		Jitter: between(r, 0, 2*time.Millisecond), Snapshots: 50 + r.Uint64N(400),
		Locks: 1 + r.IntN(4), MaxExpiry: []int{0, 1, 3}[r.IntN(3)], Window: []int{0, 300, 1000}[r.IntN(3)],
	}
	switch profile {
	case "tight":
		p.Locks = 1
	case "wide":
		p.Timing, p.Latency, p.Jitter = time.Second, between(r, 10*time.Millisecond, 40*time.Millisecond), 10*time.Millisecond
	case "five":
		p.Nodes = 5
	case "addresses":
		p.Nodes, p.Locks = 3+2*r.IntN(2), 1+r.IntN(2)
	case "crowd":
		p.Window = 0 // thousands are under way in one session
	case "greedy":
		p.Limits = greedyLimits(r)
	case "disks":
		p.Timing, p.Locks = 500*time.Millisecond, 2+r.IntN(6)
	case "reads":
		p.Nodes, p.LongLease = 2+2*r.IntN(2), "n1" // a majority without the leader is smaller if they are even
	}
	if r.IntN(4) == 0 && p.Profile != "greedy" {
		p.Onces = 60
	}
	p.addWorkers(r)
	p.skewClocks(r)
	p.addEpisodes(r)
	p.addDisks(r)
	return p, nil
}

// diskFaults are those after which it counts who had written what.
var diskFaults = []string{"power-off-all", "power-off-all", "power-off-all", "power-off", "kill-majority", "isolate", "split", "transfer"}

// addDisks has each write take some time in half of the plans, more on one node than on
// another: a node can lose its power, or the leadership, while others have written what it
// still writes. In those of the profile "disks" the times are long, but for one node.
func (p *Plan) addDisks(r *rand.Rand) {
	most := 10 * time.Millisecond
	if p.Profile == "disks" {
		most = 150 * time.Millisecond
	} else if r.IntN(2) == 0 {
		return
	}
	p.Disks = map[string]time.Duration{}
	for _, name := range p.nodeNames() {
		p.Disks[name] = between(r, 0, most)
	}
	if p.Profile == "disks" {
		p.Disks[p.nodeNames()[r.IntN(p.Nodes)]] = between(r, 0, time.Millisecond)
	}
}

func (p *Plan) addWorkers(r *rand.Rand) {
	n := 3 + r.IntN(3)
	if p.Profile == "tight" {
		n = 6
	} else if slices.Index(Profiles, p.Profile) >= 5 && p.Profile != "addresses" && p.Profile != "misled" && p.Profile != "disks" {
		n = 2 // and those with the job
	}
	for i := range n {
		w := Worker{
			Name: fmt.Sprintf("c%d", i+1), TTL: time.Duration(1+r.IntN(8)) * time.Second,
			Pace: between(r, 200*time.Millisecond, 2*time.Second), Lines: 1 + r.IntN(2),
		}
		if p.Profile == "disks" {
			w.TTL, w.Lines, w.Pace = time.Duration(4+r.IntN(6))*time.Second, 2, between(r, 50*time.Millisecond, 500*time.Millisecond)
		}
		if p.Profile == "tight" {
			w.TTL, w.Lines, w.Pace = 2*time.Second, 1, 100*time.Millisecond
		}
		if p.Profile == "modes" && i%2 == 0 {
			w.Job = "modes"
		}
		p.Workers = append(p.Workers, w)
	}
	for _, job := range p.jobs(r) {
		w := Worker{
			Name: fmt.Sprintf("%s%d", job, len(p.Workers)+1), TTL: time.Duration(5+r.IntN(6)) * time.Second,
			Pace: between(r, time.Second, 4*time.Second), Lines: 1, Job: job,
		}
		switch {
		case job == "crowd": // it outlives what must not wait for it
			w.TTL, w.Pace = 3*soonBound(*p), 20*time.Second
		case job == "values" && p.Window == 0: // ten thousand at a time
			w.Pace = 2 * time.Minute
		}
		p.Workers = append(p.Workers, w)
	}
}

// longest is the longest TTL of a session or grant.
func (p *Plan) longest() time.Duration {
	longest := maxHold
	for _, w := range p.Workers {
		longest = max(longest, w.TTL)
		if w.Job == "scripts" || w.Job == "embedded" {
			longest = max(longest, scriptHold)
		}
	}
	return longest
}

// jobs are what is done beside all sorts of things, each by a worker of its own.
func (p *Plan) jobs(r *rand.Rand) []string {
	switch p.Profile {
	case "tight", "modes":
		return nil // they have enough to do
	case "mixed", "wide", "five", "addresses", "misled", "disks":
		return []string{lightJobs[r.IntN(len(lightJobs))]}
	case "masses":
		return []string{"masses", "values"}
	case "crowd":
		return []string{"crowd"}
	case "greedy":
		return []string{"greedy", "scripts", besideGreed[r.IntN(len(besideGreed))]}
	}
	return []string{p.Profile, p.Profile, p.Profile}
}

// limits are those of the table.
func (p *Plan) limits() fsm.Limits {
	l := p.Limits
	l.ExpiriesPerEntry, l.RequestsWindow = p.MaxExpiry, p.Window
	if p.Onces != 0 {
		l.OnceRemembered = p.Onces
	}
	return l
}

// auth is the mode of rights.
func (p *Plan) auth() string {
	if p.Profile == "rights" {
		return "required"
	}
	return ""
}

// timings are those of the nodes that have one of their own.
func (p *Plan) timings() map[string]time.Duration {
	if p.LongLease == "" {
		return nil
	}
	return map[string]time.Duration{p.LongLease: leaseFactor * p.Timing}
}

// maxRateError is how far clocks may run from real time.
const maxRateError = 0.005

func (p *Plan) skewClocks(r *rand.Rand) {
	names := p.nodeNames()
	for _, w := range p.Workers {
		names = append(names, w.Name)
	}
	for _, name := range names {
		e := (2*r.Float64() - 1) * maxRateError
		if p.Profile == "tight" { // as far apart as is allowed
			e = maxRateError * float64(1-2*r.IntN(2))
		}
		p.Rates[name] = 1 + e
	}
}

func (p *Plan) nodeNames() (names []string) {
	for i := range p.Nodes {
		names = append(names, fmt.Sprintf("n%d", i+1))
	}
	return names
}

// addEpisodes fills the time with episodes, with quiet between them.
func (p *Plan) addEpisodes(r *rand.Rand) {
	for at := 3 * time.Second; ; {
		e := Episode{At: at, For: between(r, 2*time.Second, 25*time.Second)}
		if e.At+e.For+5*time.Second > p.Duration {
			return
		}
		for range 1 + r.IntN(3) {
			e.Steps = append(e.Steps, p.newStep(r, e.For))
		}
		slices.SortStableFunc(e.Steps, func(a, b Step) int { return cmp.Compare(a.After, b.After) })
		p.Episodes = append(p.Episodes, e)
		at += e.For + between(r, 3*time.Second, 15*time.Second)
	}
}

func (p *Plan) newStep(r *rand.Rand, most time.Duration) Step {
	nodes := p.nodeNames()
	s := Step{Kind: kinds[r.IntN(len(kinds))], After: between(r, 0, most/2), For: between(r, 50*time.Millisecond, most)}
	if p.Profile == "reads" && r.IntN(3) > 0 {
		s.Kind = readFaults[r.IntN(len(readFaults))]
	}
	if p.Profile == "addresses" && r.IntN(3) > 0 {
		s.Kind = addressFaults[r.IntN(len(addressFaults))]
	}
	if p.Profile == "disks" && r.IntN(3) > 0 {
		s.Kind = diskFaults[r.IntN(len(diskFaults))]
	}
	if p.Profile == "misled" && s.Kind == "remove-leader" {
		s.Kind = "transfer" // who is a member at the end is compared with who was at the beginning
	}
	if r.IntN(3) == 0 {
		s.For = between(r, 50*time.Millisecond, 1500*time.Millisecond) // about as long as an election
	}
	s.Who = leader
	if r.IntN(2) == 0 {
		s.Who = nodes[r.IntN(len(nodes))]
	}
	s.Other = nodes[r.IntN(len(nodes))]
	f := faults[s.Kind]
	if f.ofLeader {
		s.Who = leader
	}
	if f.ofClients {
		s.Who = p.Workers[r.IntN(len(p.Workers))].Name
	}
	if f.amount != nil {
		s.Amount = f.amount(r)
	}
	return s
}

func between(r *rand.Rand, from, to time.Duration) time.Duration {
	return from + time.Duration(r.Int64N(int64(to-from)+1))
}
