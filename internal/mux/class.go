package mux

import apiv1 "github.com/locknode/locknode/api/v1"

// Class says by which bound an operation is limited. Operations that wait are counted
// separately everywhere, so that nothing else is refused because of them.
type Class int

const (
	// Prompt is answered as soon as the cluster has processed it.
	Prompt Class = iota
	// Frees is prompt, and releases something or keeps it alive. Half of the room is
	// reserved for it.
	Frees
	// Waits may wait in a queue for any time.
	Waits
)

// ClassOf returns the class of an operation.
func ClassOf(op *apiv1.Operation) Class {
	switch {
	case MayWait(op):
		return Waits
	case op.Kind().Frees():
		return Frees
	}
	return Prompt
}

// MayWait reports whether op may wait in a queue: only an acquire does.
func MayWait(op *apiv1.Operation) bool {
	a, ok := op.GetRequest().(*apiv1.Operation_Acquire)
	return ok && a.Acquire.GetWaitNs() != 0
}

// Load counts operations by class.
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
