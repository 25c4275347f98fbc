package history

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/locknode/locknode/client"
	"github.com/locknode/locknode/internal/proof/leaks"
	"github.com/locknode/locknode/node"
)

func TestMain(m *testing.M) { os.Exit(leaks.Run(m)) }

// TestHistoryOfARealNodeHasNoViolation: real clients over a real socket, with all kinds of
// operations, the recorder and every check.
func TestHistoryOfARealNodeHasNoViolation(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	n, err := node.Open(ctx, node.Config{DataDir: t.TempDir(), Listen: "127.0.0.1:0", BootstrapExpect: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	began := time.Now()
	rec := NewRecorder(func() time.Duration { return time.Since(began) })
	var wg sync.WaitGroup
	for i := range 6 {
		name := fmt.Sprint("c", i)
		c, err := client.Dial(ctx, []string{n.APIAddr()}, client.SessionTTL(2*time.Second),
			client.GRPC(rec.DialOptions(name)...), client.Trace(rec.Trace(name)))
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			use(ctx, t, c, rand.New(rand.NewPCG(1, uint64(i))))
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	h := rec.History()
	report := h.Check(Options{Late: 200 * time.Millisecond})
	for _, v := range report.Violations {
		t.Errorf("%+v", v)
	}
	s := report.Stats
	t.Logf("%+v", s)
	if s.Ops < 500 || s.Grants < 100 || s.Beliefs < 50 || s.Locks < 3 {
		t.Errorf("the recorder has recorded too little: %+v", s)
	}
	kinds := make(map[Kind]int)
	for _, o := range h.Ops {
		kinds[o.Kind]++
	}
	for _, k := range []Kind{Acquire, Cancel, Release, Renew, ForceRelease, Resize, Get, Open, KeepAlive, End} {
		if kinds[k] == 0 {
			t.Errorf("no operation of kind %s was recorded", k)
		}
	}
	checkWritten(t, h)
}

// use uses locks as programs do, for a while.
func use(ctx context.Context, t *testing.T, c *client.Client, rnd *rand.Rand) {
	for range 60 {
		lock := fmt.Sprint("lock", rnd.IntN(3))
		var err error
		switch rnd.IntN(9) {
		case 0:
			_, err = c.Get(ctx, lock)
		case 1:
			err = useDetached(ctx, c, lock)
		case 2:
			_, err = c.ForceRelease(ctx, lock, 0, "test")
		case 3:
			short, stop := context.WithTimeout(ctx, time.Duration(rnd.IntN(5))*time.Millisecond)
			err = hold(short, c.Lock, lock, 3*time.Millisecond)
			stop()
		case 4:
			err = hold(ctx, c.TryLock, lock, time.Millisecond)
		case 5:
			err = hold(ctx, c.Lock, lock, 0, client.TTL(time.Second), client.Wait(20*time.Millisecond))
		case 6:
			err = c.Resize(ctx, "semaphore", 3)
		default:
			err = hold(ctx, c.Lock, lock, time.Millisecond, client.Wait(500*time.Millisecond))
		}
		switch {
		case err == nil, errors.Is(err, client.ErrBusy), errors.Is(err, client.ErrNotHeld), errors.Is(err, context.DeadlineExceeded):
		case errors.Is(err, client.ErrSession): // the machine is busy
		default:
			t.Errorf("unexpected error: %v", err)
			return
		}
	}
	time.Sleep(time.Second) // for keep-alives
}

type locker func(context.Context, string, ...client.LockOption) (*client.Grant, error)

func hold(ctx context.Context, lock locker, name string, d time.Duration, opts ...client.LockOption) error {
	g, err := lock(ctx, name, opts...)
	if err != nil {
		return err
	}
	time.Sleep(d)
	return g.Unlock()
}

func useDetached(ctx context.Context, c *client.Client, lock string) error {
	d := c.Detached()
	g, err := d.Acquire(ctx, lock, time.Second, client.Wait(20*time.Millisecond))
	if err != nil {
		return err
	}
	if _, err := d.Renew(ctx, lock, g.Token, 2*time.Second); err != nil {
		return err
	}
	return d.Release(ctx, lock, g.Token)
}

// checkWritten writes the history, reads it again and compares.
func checkWritten(t *testing.T, h *History) {
	t.Helper()
	var first, second bytes.Buffer
	if err := h.Write(&first); err != nil {
		t.Fatal(err)
	}
	again, err := Read(bytes.NewReader(first.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Write(&second); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Error("a history that was written and read differs when it is written again")
	}
}
