//go:build unix

package raftlog

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

var kills = flag.Int("kills", 15, "how often TestKilledWriterLosesNothing kills")

const writerDir = "RAFTLOG_TEST_WRITER"

func openReal(dir string) (*Log, *Mark, error) {
	mark, err := OpenMark(OS{}, filepath.Join(dir, "mark"))
	if err != nil {
		return nil, nil, err
	}
	l, err := Open(Options{Dir: filepath.Join(dir, "log"), Mark: mark, SegmentSize: 128 << 10})
	return l, mark, err
}

// content of an entry follows from index and term, so that a reader can check it.
func known(index, term uint64) *raft.Log {
	rnd := rand.New(rand.NewPCG(index, term)) //nolint:gosec // a test
	e := &raft.Log{Index: index, Term: term, Data: make([]byte, rnd.IntN(900)), AppendedAt: time.Unix(int64(index), 0)}
	if rnd.IntN(300) == 0 {
		e.Data = make([]byte, 150<<10)
	}
	for i := range e.Data {
		e.Data[i] = byte(rnd.Uint32())
	}
	return e
}

// writer is the process that is killed. It says what it is about to do, and then "done".
func writer(dir string) error {
	l, _, err := openReal(dir)
	if err != nil {
		return err
	}
	first, _ := l.FirstIndex()
	last, _ := l.LastIndex()
	term := uint64(1)
	if last > 0 {
		var e raft.Log
		if err := l.GetLog(last, &e); err != nil {
			return err
		}
		term = e.Term
	}
	for {
		op, from, to := "append", last+1, last+1+rand.Uint64N(8)
		switch n := last - first; {
		case last == 0 || n < 50 || rand.IntN(10) > 0:
		case rand.IntN(2) == 0:
			op, from, to = "cut", last-rand.Uint64N(20), last
			term++
		default:
			op, from, to = "cut", first, last-rand.Uint64N(min(n, 300))
		}
		fmt.Println(op, from, to, term)
		if op == "append" {
			var logs []*raft.Log
			for i := from; i <= to; i++ {
				logs = append(logs, known(i, term))
			}
			err = l.StoreLogs(logs)
		} else {
			err = l.DeleteRange(from, to)
		}
		if err != nil {
			return err
		}
		fmt.Println("done")
		first, _ = l.FirstIndex()
		last, _ = l.LastIndex()
	}
}

func TestMain(m *testing.M) {
	if dir := os.Getenv(writerDir); dir != "" {
		fmt.Fprintln(os.Stderr, writer(dir))
		os.Exit(1)
	}
	flag.Parse()
	os.Exit(m.Run())
}

// step is a line of the writer.
type step struct {
	op             string
	from, to, term uint64
}

func (s step) apply(terms []uint64, first uint64) ([]uint64, uint64) {
	terms = slices.Clone(terms)
	switch {
	case s.op == "append":
		for range s.to - s.from + 1 {
			terms = append(terms, s.term)
		}
		if len(terms) == int(s.to-s.from+1) {
			first = s.from
		}
	case s.from == first:
		terms, first = terms[s.to+1-first:], s.to+1
	default:
		terms = terms[:s.from-first]
	}
	return terms, first
}

// TestKilledWriterLosesNothing kills a process that appends and cuts, on a real file
// system, again and again.
func TestKilledWriterLosesNothing(t *testing.T) {
	dir := t.TempDir()
	var terms []uint64 // of the entries from first on
	first, steps := uint64(0), 0
	for range *kills {
		c := exec.CommandContext(t.Context(), os.Args[0])
		c.Env = append(os.Environ(), writerDir+"="+dir)
		c.Stderr = os.Stderr
		out, err := c.StdoutPipe()
		if err == nil {
			err = c.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		stopAt := 1 + rand.IntN(400) // lines; the kill comes a moment later
		var begun *step
		for n := 0; lines.Scan(); n++ {
			if n == stopAt {
				time.AfterFunc(time.Duration(rand.IntN(2000))*time.Microsecond, func() { _ = c.Process.Kill() })
			}
			if lines.Text() == "done" {
				terms, first = begun.apply(terms, first)
				begun = nil
				steps++
				continue
			}
			var s step
			if _, err := fmt.Sscan(lines.Text(), &s.op, &s.from, &s.to, &s.term); err != nil {
				t.Fatalf("%q: %v", lines.Text(), err)
			}
			begun = &s
		}
		_ = c.Wait() // it was killed
		if c.ProcessState.Exited() {
			t.Fatalf("the writer has ended by itself: %v", c.ProcessState)
		}
		l, mark, err := openReal(dir)
		if err != nil {
			t.Fatal(err)
		}
		if err := holds(l, terms, first); err != nil {
			if begun == nil {
				t.Fatal(err)
			}
			terms, first = begun.apply(terms, first)
			if err2 := holds(l, terms, first); err2 != nil {
				t.Fatalf("%v; nor with %+v: %v", err, *begun, err2)
			}
		}
		if err := errors.Join(l.Close(), mark.Close()); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d kills, %d appends and cuts that were acknowledged", *kills, steps)
}

func holds(l *Log, terms []uint64, first uint64) error {
	if len(terms) == 0 {
		first = 0
	}
	gotFirst, _ := l.FirstIndex()
	gotLast, _ := l.LastIndex()
	if gotFirst != first || len(terms) > 0 && gotLast != first+uint64(len(terms))-1 {
		return fmt.Errorf("the log has %d to %d, want %d entries from %d", gotFirst, gotLast, len(terms), first)
	}
	for i, term := range terms {
		var e raft.Log
		index := first + uint64(i) //nolint:gosec // small
		if err := l.GetLog(index, &e); err != nil {
			return err
		}
		if want := known(index, term); !same(e, *want) {
			return fmt.Errorf("entry %d is of term %d with %d bytes, want term %d and %d bytes", index, e.Term, len(e.Data), term, len(want.Data))
		}
	}
	return nil
}
