//go:build unix

package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/locknode/locknode/client"
)

const (
	// drillSession is as short as sessions may be, so that pauses can be.
	drillSession = time.Second
	// setSize is how many numbers go into a set: it is written as a whole.
	setSize = 200
	// drillLanes is how many goroutines a process of the drill has. Those with the
	// same number, of all processes, add to the same sets.
	drillLanes = 4
	// pausing is what a process of the drill prints before it stops itself.
	pausing = "pausing"
)

// DrillWorkerConfig is what a process of the drill is told.
type DrillWorkerConfig struct {
	Name       string   `json:"name"`
	Endpoints  []string `json:"endpoints"`
	Sets       string   `json:"sets"` // the address of the resource
	Number     int      `json:"number"`
	Processes  int      `json:"processes"`
	Adds       int      `json:"adds"`        // of all processes together
	PauseEvery int      `json:"pause_every"` // of this one's adds
}

// drillWorker is a client process of the drill.
type drillWorker struct {
	DrillWorkerConfig
	client *client.Client
	stdout io.Writer
	added  atomic.Int64
	next   atomic.Int64 // when so many have been added, somebody pauses
	mu     sync.Mutex   // held while something is printed
}

// RunDrillWorker is a client process of the drill: it adds its share of the
// numbers, and stops itself now and then where that does most harm.
func RunDrillWorker(config string, stdout io.Writer) error {
	w := &drillWorker{stdout: stdout}
	if err := json.Unmarshal([]byte(config), &w.DrillWorkerConfig); err != nil {
		return fmt.Errorf("read the configuration of a drill process: %w", err)
	}
	w.next.Store(int64(w.PauseEvery) / 2)
	var err error
	if w.client, err = client.Dial(context.Background(), w.Endpoints, client.Holder(w.Name), client.SessionTTL(drillSession)); err != nil {
		return err
	}
	defer func() { _ = w.client.Close() }() // it holds nothing any more
	errs := make([]error, drillLanes)
	var lanes sync.WaitGroup
	for lane := range drillLanes {
		lanes.Go(func() { errs[lane] = w.fill(lane) })
	}
	ended := make(chan struct{})
	var reports sync.WaitGroup
	reports.Go(func() {
		for {
			w.print("%d", w.added.Load())
			select {
			case <-ended:
				return
			case <-time.After(reportEvery):
			}
		}
	})
	lanes.Wait()
	close(ended)
	reports.Wait()
	return errors.Join(errs...)
}

func (w *drillWorker) print(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	fmt.Fprintf(w.stdout, format+"\n", args...)
}

// fill adds the numbers of a lane that are this process's, in order, so that all
// processes are at the same set most of the time.
func (w *drillWorker) fill(lane int) error {
	sets, err := dialSets(w.Sets)
	if err != nil {
		return err
	}
	defer func() { _ = sets.conn.Close() }() // all was answered
	for i := lane + drillLanes*w.Number; i < w.Adds; i += drillLanes * w.Processes {
		name := fmt.Sprintf("guarded/%d-%d", lane, i/(drillLanes*setSize))
		for {
			err := w.add(sets, name, i)
			if err == nil {
				break
			}
			if !errors.Is(err, errStaleToken) && !ordinary(err) {
				return fmt.Errorf("%s: add %d to %s: %w", w.Name, i, name, err)
			}
		}
		w.added.Add(1)
	}
	return nil
}

// add adds a number to a set, as a program does that uses a lock: it acquires,
// reads, changes, looks whether it still holds the lock, writes, and releases.
func (w *drillWorker) add(sets *setClient, name string, number int) error {
	ctx, cancel := context.WithTimeout(context.Background(), callLimit)
	defer cancel()
	g, err := w.client.Lock(ctx, name)
	if err != nil {
		return late(ctx, err)
	}
	defer func() { _ = g.Unlock() }() // if the lock is lost, the resource refuses the token
	numbers, err := sets.ask(setRequest{Name: name, Token: g.Token()})
	if err != nil {
		return err
	}
	if err := g.Err(); err != nil {
		return err
	}
	w.pause()
	_, err = sets.ask(setRequest{Name: name, Token: g.Token(), Write: true, Numbers: append(numbers, number)})
	return err
}

// pause stops the process now and then, until it is resumed from outside. Its last check that
// it holds the lock is no longer true then.
func (w *drillWorker) pause() {
	next := w.next.Load()
	if w.added.Load() < next || !w.next.CompareAndSwap(next, next+int64(w.PauseEvery)) {
		return
	}
	w.print(pausing)
	last := monotonic()
	if err := syscall.Kill(os.Getpid(), syscall.SIGSTOP); err != nil {
		panic("chaos: stop this process: " + err.Error()) // nobody may forbid it
	}
	// The call may return before all threads stand still: the pause is over when
	// time was seen to have passed in which this one did not run.
	for now := monotonic(); now-last < pausedFor/2; now = monotonic() {
		last = now
		time.Sleep(time.Millisecond)
	}
}
