package chaos

import (
	"errors"
	"net"
	"slices"
	"sync"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A holder reads, is paused, and writes when others have had the lock.
func pausedWriter(t *testing.T, s *sets) (lost int) {
	t.Helper()
	mine, err := s.read("a", 1)
	if err != nil {
		t.Fatal(err)
	}
	for token := uint64(2); token <= 4; token++ { // others, meanwhile
		theirs, err := s.read("a", token)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.write("a", token, append(theirs, int(token-1))); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.write("a", 1, append(mine, 0)); err != nil {
		if !errors.Is(err, errStaleToken) {
			t.Fatal(err)
		}
		mine, err := s.read("a", 5) // it acquires again
		if err != nil {
			t.Fatal(err)
		}
		if err := s.write("a", 5, append(mine, 0)); err != nil {
			t.Fatal(err)
		}
	}
	lost, _ = s.missing(4)
	return lost
}

func TestTokensSaveWhatAPausedWriterWouldOverwrite(t *testing.T) {
	s := newSets(true)
	if lost := pausedWriter(t, s); lost != 0 || s.refused != 1 {
		t.Errorf("guarded: %d lost, %d refused, want none and one", lost, s.refused)
	}
	if lost := pausedWriter(t, newSets(false)); lost != 3 {
		t.Errorf("unguarded: %d lost, want what three others have added", lost)
	}
}

// Without a look at the token when it is read, the paused holder could write between
// its successor's reading and writing, and be overwritten.
func TestTokenIsComparedWhenASetIsRead(t *testing.T) {
	s := newSets(true)
	if _, err := s.read("a", 1); err != nil {
		t.Fatal(err)
	}
	if _, err := s.read("a", 2); err != nil {
		t.Fatal(err)
	}
	if err := s.write("a", 1, []int{0}); !errors.Is(err, errStaleToken) {
		t.Errorf("write of a holder whose successor has read: got %v, want errStaleToken", err)
	}
	if _, err := s.read("a", 1); !errors.Is(err, errStaleToken) {
		t.Errorf("read of a holder whose successor has read: got %v, want errStaleToken", err)
	}
	if err := s.write("b", 1, []int{0}); err != nil {
		t.Errorf("write to another set: %v", err)
	}
}

func TestSetsAreServedOverConnections(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := newSets(true)
	var serving sync.WaitGroup
	serving.Go(func() { s.serve(l) })
	c, err := dialSets(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.ask(setRequest{Name: "a", Token: 7, Write: true, Numbers: []int{3, 1}}); err != nil {
		t.Fatal(err)
	}
	if got, err := c.ask(setRequest{Name: "a", Token: 7}); err != nil || !slices.Equal(got, []int{3, 1}) {
		t.Errorf("read: got %v, %v", got, err)
	}
	if _, err := c.ask(setRequest{Name: "a", Token: 6}); !errors.Is(err, errStaleToken) {
		t.Errorf("read with an old token: got %v", err)
	}
	if lost, sets := s.missing(5); lost != 3 || sets != 1 {
		t.Errorf("missing: got %d in %d sets, want 3 of 5 in one", lost, sets)
	}
	_, _ = c.conn.Close(), l.Close()
	serving.Wait()
}
