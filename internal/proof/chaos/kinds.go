//go:build unix

package chaos

import (
	"context"
	"slices"
	"time"
)

// Kind is a kind of fault.
type Kind struct {
	Name   string
	Family string // "process", "client", "network", "disk", "files", "members"
	About  string // what is done, in a line
	// Bound is the recovery bound where it is not that of the options.
	Bound time.Duration

	hold       span // how long it lasts
	unpromised bool // it breaks what promises rely on, and is done only if it is named
	// needs says why it cannot be done, nil if it can.
	needs func(*run) error
	// strike does it, lifts it, and measures how the cluster recovers.
	strike func(context.Context, *run, strike) error
	// beside does it and lifts it during another fault; nil: it cannot be done then.
	beside func(*run, context.Context, strike) error
}

// strike is a step with its kind.
type strike struct {
	Step
	kind Kind
}

// held is how long the fault is to last.
func (s strike) held() time.Duration { return s.kind.hold.at(s.Hold) }

// Kinds are all kinds of faults.
func Kinds() []Kind {
	return slices.Concat(processKinds, networkKinds, clientNetworkKinds, memberKinds, fileKinds, diskKinds, faultyKinds, lyingKinds)
}

func kindNames() (names []string) {
	for _, k := range Kinds() {
		names = append(names, k.Name)
	}
	return names
}

func kindNamed(name string) (Kind, bool) {
	for _, k := range Kinds() {
		if k.Name == name {
			return k, true
		}
	}
	return Kind{}, false
}
