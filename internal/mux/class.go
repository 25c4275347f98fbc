package mux

import apiv1 "github.com/locknode/locknode/api/v1"

// Class is what bounds an operation. Nothing else is ever refused because of
// operations that wait: wherever operations are counted, those are counted apart.
type Class int

const (
	// Prompt is answered as soon as the cluster gets to it.
	Prompt Class = iota
	// Frees is prompt, and gives something back or keeps it alive. Half of the room is
	// for it alone.
	Frees
	// Waits may stand in line for as long as it takes.
	Waits
)

// ClassOf returns the class of an operation.
func ClassOf(op *apiv1.Operation) Class {
	switch op.GetRequest().(type) {
	case *apiv1.Operation_Acquire:
		if waits(op) {
			return Waits
		}
	case *apiv1.Operation_KeepAlive, *apiv1.Operation_EndSession, *apiv1.Operation_Cancel,
		*apiv1.Operation_Release, *apiv1.Operation_Renew, *apiv1.Operation_ForceRelease:
		return Frees
	}
	return Prompt
}

// Load is how many operations there are, by what bounds them.
type Load struct{ Prompt, Waits int }

// Add counts n more operations of a class; n may be negative.
func (l *Load) Add(c Class, n int) {
	if c == Waits {
		l.Waits += n
	} else {
		l.Prompt += n
	}
}

// Takes reports whether there is room for one more operation of a class where the load
// is at most room: twice as much for what frees.
func (l Load) Takes(c Class, room Load) bool {
	switch c {
	case Waits:
		return l.Waits < room.Waits
	case Frees:
		return l.Prompt < 2*room.Prompt
	}
	return l.Prompt < room.Prompt
}
