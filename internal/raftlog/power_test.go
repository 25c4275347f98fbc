package raftlog

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

var (
	losses = flag.Int("losses", 600, "how often TestPowerLossLosesNothing takes the power away")
	seed   = flag.Uint64("seed", 1, "where TestPowerLossLosesNothing begins")
)

// content is what a log should hold.
type content struct {
	entries []raft.Log
}

func (c content) first() uint64 {
	if len(c.entries) == 0 {
		return 0
	}
	return c.entries[0].Index
}

func (c content) last() uint64 {
	if len(c.entries) == 0 {
		return 0
	}
	return c.entries[len(c.entries)-1].Index
}

func (c content) String() string {
	return fmt.Sprintf("%d to %d", c.first(), c.last())
}

// differs says what is different in a log; nil: nothing.
func (c content) differs(l *Log) error {
	first, _ := l.FirstIndex()
	last, _ := l.LastIndex()
	if first != c.first() || last != c.last() {
		return fmt.Errorf("the log has %d to %d, want %v", first, last, c)
	}
	for _, want := range c.entries {
		var got raft.Log
		if err := l.GetLog(want.Index, &got); err != nil {
			return err
		}
		if !same(got, want) {
			return fmt.Errorf("entry %d is %v, want %v", want.Index, got, want)
		}
	}
	return nil
}

func same(a, b raft.Log) bool {
	return a.Index == b.Index && a.Term == b.Term && a.Type == b.Type && a.AppendedAt.Equal(b.AppendedAt) &&
		bytes.Equal(a.Data, b.Data) && bytes.Equal(a.Extensions, b.Extensions)
}

// player uses a log at random and knows what must be in it.
type player struct {
	t    testing.TB
	rnd  *rand.Rand
	disk *disk
	term uint64

	mark *Mark
	log  *Log
	// must is what was acknowledged; may is what a call that has not returned makes of it.
	must content
	may  *content
	seen uint64 // the last index that was ever used

	losses, torn, kills, failedSyncs, opened int
}

func newPlayer(t testing.TB, seed uint64) *player {
	rnd := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // a test
	return &player{t: t, rnd: rnd, disk: newDisk(rnd), term: 1}
}

// open opens the log, which must hold what was acknowledged, or what the call that was
// interrupted makes of it. From then on it must hold that.
func (p *player) open() error {
	var err error
	if p.mark, err = OpenMark(p.disk, "data/mark"); err != nil {
		return err
	}
	p.log, err = Open(Options{Dir: "data/log", Mark: p.mark, FS: p.disk, SegmentSize: 32 << 10, inline: true,
		Snapshot: func() (uint64, uint64, error) { return p.must.last(), p.term, nil }})
	if err != nil {
		return err
	}
	if p.disk.off { // with the last change that Open made
		return errPower
	}
	p.opened++
	err = p.must.differs(p.log)
	if err != nil && p.may != nil {
		if p.may.differs(p.log) == nil {
			p.must, err = *p.may, nil
		}
	}
	if err != nil {
		err = fmt.Errorf("%w (or %v)", err, p.may)
	}
	p.may = nil
	return err
}

// act does one thing.
func (p *player) act() error {
	c := p.must
	n := len(c.entries)
	switch p.rnd.IntN(20) {
	case 0:
		if n == 0 {
			return nil
		}
		from := c.first() + p.rnd.Uint64N(uint64(n))
		p.term++
		return p.try(content{slices.Clip(c.entries[:from-c.first()])}, func() error { return p.log.DeleteRange(from, c.last()) })
	case 1, 2:
		if n == 0 {
			return nil
		}
		to := c.first() + p.rnd.Uint64N(uint64(n))
		return p.try(content{slices.Clip(c.entries[to-c.first()+1:])}, func() error { return p.log.DeleteRange(c.first(), to) })
	case 3:
		if p.rnd.IntN(4) > 0 || n == 0 {
			return nil
		}
		return p.try(content{}, func() error { return p.log.DeleteRange(c.first(), c.last()) })
	case 4:
		if err := errors.Join(p.log.Close(), p.mark.Close()); err != nil {
			return err
		}
		return p.open()
	case 5: // kill -9
		p.kills++
		_ = p.log.Close() // the model keeps files of no process
		return p.open()
	case 6:
		if p.rnd.IntN(3) > 0 {
			return nil
		}
		return p.failSync()
	}
	return p.append()
}

func (p *player) append() error {
	c := p.must
	next := c.last() + 1
	if c.last() == 0 {
		next = p.seen + 1 + p.rnd.Uint64N(3)
	}
	logs := make([]*raft.Log, 1+p.rnd.IntN(6))
	after := content{slices.Clone(c.entries)}
	for i := range logs {
		size := p.rnd.IntN(700)
		if p.rnd.IntN(200) == 0 {
			size = 40 << 10 // more than a segment
		}
		e := raft.Log{Index: next + uint64(i), Term: p.term, Type: raft.LogType(p.rnd.IntN(4)), Data: make([]byte, size), AppendedAt: time.Unix(p.rnd.Int64N(1e9), p.rnd.Int64N(1e9))}
		for j := range e.Data {
			e.Data[j] = byte(p.rnd.Uint32())
		}
		if p.rnd.IntN(4) == 0 {
			e.Extensions = []byte("more")
		}
		logs[i] = &e
		after.entries = append(after.entries, e)
	}
	p.seen = max(p.seen, after.last())
	return p.try(after, func() error { return p.log.StoreLogs(logs) })
}

// try makes a call that leads to another content.
func (p *player) try(after content, call func() error) error {
	p.may = &after
	if err := call(); err != nil {
		return err
	}
	p.must, p.may = after, nil
	return nil
}

// failSync has one of the next syncs fail, then ends the process and starts another one,
// which reads from the memory of the system what never got to the disk.
func (p *player) failSync() error {
	countdown := p.rnd.IntN(6)
	p.disk.failing = func(op, _ string) error {
		if op == "sync" || op == "syncdir" {
			if countdown--; countdown < 0 {
				return syscall.EIO
			}
		}
		return nil
	}
	var err error
	for range 10 {
		if err = p.append(); err != nil {
			break
		}
	}
	p.disk.failing = nil
	switch {
	case err == nil:
		return errors.New("ten appends and no sync has failed")
	case errors.Is(err, errPower):
		return err
	case !errors.Is(err, syscall.EIO):
		return fmt.Errorf("append with a failing sync: %w", err)
	}
	p.failedSyncs++
	if p.log.failed == nil { // it was a file for the next segment
		p.may = nil
		return p.append()
	}
	changes := p.disk.changes
	if again := p.log.StoreLogs([]*raft.Log{{Index: p.must.last() + 1, Term: p.term}}); again == nil || p.disk.changes != changes {
		return fmt.Errorf("an append after a failed sync returns %w and has changed the disk %d times", again, p.disk.changes-changes)
	}
	_ = p.log.Close()
	return p.open()
}

// play takes the power away so many times.
func (p *player) play(times int) {
	for p.losses < times {
		p.disk.offAt = p.disk.changes + 1 + p.rnd.IntN(60)
		err := p.open()
		for err == nil {
			err = p.act()
		}
		if !errors.Is(err, errPower) {
			p.t.Fatalf("after %d losses of power: %v\n%v", p.losses, err, p.disk)
		}
		if p.disk.lose() {
			p.torn++
		}
		p.losses++
	}
}

// TestPowerLossLosesNothing takes the power away at random changes of the disk, in the
// middle of everything that a log does, opening it included. Afterwards the log opens and
// holds what was acknowledged, with or without the call that was interrupted.
func TestPowerLossLosesNothing(t *testing.T) {
	const perDisk = 50
	var all player
	for n := 0; n < *losses; n += perDisk {
		p := newPlayer(t, *seed+uint64(n/perDisk))                               //nolint:gosec // small
		t.Run(fmt.Sprint("seed ", *seed+uint64(n/perDisk)), func(t *testing.T) { //nolint:gosec // small
			p.t = t
			p.play(min(perDisk, *losses-n))
		})
		all.losses += p.losses
		all.torn += p.torn
		all.kills += p.kills
		all.failedSyncs += p.failedSyncs
		all.opened += p.opened
	}
	t.Logf("%d losses of power, %d of them with torn writes, %d kills, %d failed syncs, opened %d times", all.losses, all.torn, all.kills, all.failedSyncs, all.opened)
	if all.torn < all.losses/10 {
		t.Errorf("only %d of %d losses tore a write; the test does not hit", all.torn, all.losses)
	}
}
