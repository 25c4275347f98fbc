package chaos

import (
	"math/rand/v2"
	"time"
)

// Step is one fault of a schedule: what is done, and everything about it that is
// left to chance. Which node leads at that time is not.
type Step struct {
	Number int    // from 1
	Fault  string // the name of the kind
	Pick   uint64 // chooses among nodes, clients, places in files
	// Hold is how long the fault lasts, where it lasts, as a share of what the
	// kind allows, and Rest how long all is well before it.
	Hold float64
	Rest time.Duration
	// Beside is a fault of another kind that happens meanwhile; empty: none.
	Beside string
}

// Schedule deals faults in an order that its seed determines. All kinds come
// equally often: they are dealt like cards from a deck that is shuffled when it
// has been used up.
type Schedule struct {
	rng    *rand.Rand
	kinds  []string
	beside []string
	rest   span
	deck   []string
	dealt  int
}

// span is a range of durations.
type span struct{ least, most time.Duration }

// at is the duration at a share of the range.
func (s span) at(share float64) time.Duration {
	return s.least + time.Duration(share*float64(s.most-s.least))
}

// NewSchedule makes the schedule of a seed. beside are the kinds that may happen
// during others as well.
func NewSchedule(seed uint64, kinds, beside []string, least, most time.Duration) *Schedule {
	return &Schedule{rng: rand.New(rand.NewPCG(seed, 0)), kinds: kinds, beside: beside, rest: span{least, most}}
}

// Next deals the next step.
func (s *Schedule) Next() Step {
	if len(s.deck) == 0 {
		s.deck = append(s.deck, s.kinds...)
		s.rng.Shuffle(len(s.deck), func(i, j int) { s.deck[i], s.deck[j] = s.deck[j], s.deck[i] })
	}
	s.dealt++
	// All is drawn in any case, so that a schedule with other kinds differs in
	// nothing else.
	step := Step{Number: s.dealt, Pick: s.rng.Uint64(), Hold: s.rng.Float64(), Rest: s.rest.at(s.rng.Float64())}
	pair, which := s.rng.IntN(3), s.rng.Uint64()
	step.Fault, s.deck = s.deck[0], s.deck[1:]
	if pair == 0 && len(s.beside) > 0 {
		if b := s.beside[which%uint64(len(s.beside))]; b != step.Fault {
			step.Beside = b
		}
	}
	return step
}
