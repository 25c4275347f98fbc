package chaos

import (
	"encoding/gob"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
)

// sets are the resource of the drill: sets of numbers, each of which is read,
// changed by its reader, and written back as a whole. It stands for any storage that
// is protected by a lock and has no transactions of its own.
//
// A guarded set compares tokens: it refuses a smaller one than it has seen for that set. It
// also compares the token of a read: otherwise a paused holder could still write between the
// read and the write of its successor, which would then overwrite that.
type sets struct {
	guarded bool

	mu      sync.Mutex // guards what follows
	content map[string][]int
	seen    map[string]uint64 // the greatest token
	refused int
}

func newSets(guarded bool) *sets {
	return &sets{guarded: guarded, content: map[string][]int{}, seen: map[string]uint64{}}
}

// errStaleToken says that another client has had the lock since.
var errStaleToken = errors.New("a greater token has been seen")

func (s *sets) checkLocked(name string, token uint64) error {
	if !s.guarded {
		return nil
	}
	if token < s.seen[name] {
		s.refused++
		return errStaleToken
	}
	s.seen[name] = token
	return nil
}

// read returns the numbers of a set.
func (s *sets) read(name string, token uint64) ([]int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.checkLocked(name, token); err != nil {
		return nil, err
	}
	return slices.Clone(s.content[name]), nil
}

// write replaces the numbers of a set.
func (s *sets) write(name string, token uint64, numbers []int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.checkLocked(name, token); err != nil {
		return err
	}
	s.content[name] = slices.Clone(numbers)
	return nil
}

// missing is how many of the first n numbers are in no set, and how many sets
// there are.
func (s *sets) missing(n int) (lost, count int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	there := make([]bool, n)
	for _, numbers := range s.content {
		for _, i := range numbers {
			if i >= 0 && i < n {
				there[i] = true
			}
		}
	}
	for _, is := range there {
		if !is {
			lost++
		}
	}
	return lost, len(s.content)
}

// setRequest is a read, or a write if Write is set.
type setRequest struct {
	Name    string
	Token   uint64
	Write   bool
	Numbers []int
}

type setAnswer struct {
	Numbers []int
	Stale   bool // the token was refused
}

// serve answers requests until the listener is closed.
func (s *sets) serve(l net.Listener) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		wg.Go(func() {
			defer func() { _ = conn.Close() }() // the client has ended
			in, out := gob.NewDecoder(conn), gob.NewEncoder(conn)
			for {
				var q setRequest
				if in.Decode(&q) != nil || out.Encode(s.answer(q)) != nil {
					return
				}
			}
		})
	}
}

func (s *sets) answer(q setRequest) setAnswer {
	if q.Write {
		return setAnswer{Stale: s.write(q.Name, q.Token, q.Numbers) != nil}
	}
	numbers, err := s.read(q.Name, q.Token)
	return setAnswer{Numbers: numbers, Stale: err != nil}
}

// setClient is a connection to the sets, for one goroutine.
type setClient struct {
	conn net.Conn
	in   *gob.Decoder
	out  *gob.Encoder
}

func dialSets(address string) (*setClient, error) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("connect to the sets: %w", err)
	}
	return &setClient{conn, gob.NewDecoder(conn), gob.NewEncoder(conn)}, nil
}

func (c *setClient) ask(q setRequest) ([]int, error) {
	var a setAnswer
	if err := errors.Join(c.out.Encode(q), c.in.Decode(&a)); err != nil {
		return nil, fmt.Errorf("ask the sets: %w", err)
	}
	if a.Stale {
		return nil, errStaleToken
	}
	return a.Numbers, nil
}
