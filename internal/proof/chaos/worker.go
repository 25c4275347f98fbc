//go:build unix

package chaos

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/locknode/locknode/client"
	"github.com/locknode/locknode/internal/proof/history"
)

// The times of a client process.
const (
	// shortSession is the session TTL of the clients that are to lose theirs.
	shortSession = 2 * time.Second
	// callLimit is how long a call may take. Every fault is over long before.
	callLimit = 30 * time.Second
	// stepLimit is how long all calls of a step may take together, with a pause of the
	// process: not every call can be bounded by who makes it.
	stepLimit = callLimit + 15*time.Second
	// nameWindow is how long a lock's name is used. A search for a contradiction
	// in the history of one lock takes the longer the longer that is.
	nameWindow = 10 * time.Second
	// reportEvery is how often a client process says what it has done.
	reportEvery = 200 * time.Millisecond
	// maxComplaints bounds what one client process complains about.
	maxComplaints = 20
)

// WorkerConfig is what a client process is told, as JSON on its command line.
type WorkerConfig struct {
	Name      string        `json:"name"`
	Endpoints []string      `json:"endpoints"`
	Seed      uint64        `json:"seed"`
	Origin    time.Duration `json:"origin"`  // the reading of the clock that is time 0
	History   string        `json:"history"` // the file to be written
	Pace      time.Duration `json:"pace"`    // mean pause of each goroutine between two steps
}

// WorkerStats is a line that a client process prints.
type WorkerStats struct {
	Operations int64    `json:"operations"`
	Complaints []string `json:"complaints,omitempty"`
}

// worker is a client process: several clients with several goroutines each.
type worker struct {
	WorkerConfig
	clock    clock
	recorder *history.Recorder
	stopping chan struct{}

	operations atomic.Int64

	mu         sync.Mutex // guards what follows
	beliefs    []history.Belief
	complaints []string
}

// RunWorker is the client process: it drives clients against the cluster until
// its standard input ends, and then writes down what they asked and were told.
func RunWorker(config string, stdin io.Reader, stdout io.Writer) error {
	w := &worker{stopping: make(chan struct{})}
	if err := json.Unmarshal([]byte(config), &w.WorkerConfig); err != nil {
		return fmt.Errorf("read the configuration of a client process: %w", err)
	}
	w.clock = clock{w.Origin}
	w.recorder = history.NewRecorder(w.clock.now)
	clients, err := w.dial()
	if err != nil {
		return err
	}
	var roles, reports sync.WaitGroup
	number := uint64(0)
	for _, r := range allRoles {
		for range r.count {
			number++
			hand := &hand{worker: w, client: clients[r.short], id: fmt.Sprintf("%s-%d", w.Name, number), rng: rand.New(rand.NewPCG(w.Seed, number))}
			roles.Go(func() { hand.work(r) })
		}
	}
	reporting := make(chan struct{})
	reports.Go(func() { w.report(stdout, reporting) })
	_, _ = io.Copy(io.Discard, bufio.NewReader(stdin)) // however it ends, it has ended
	close(w.stopping)
	roles.Wait()
	for _, c := range clients {
		_ = c.Close() // what it could not give back ends by its TTL
	}
	close(reporting)
	reports.Wait()
	return w.write()
}

// dial makes two clients: one with a short session, one with the default.
func (w *worker) dial() (map[bool]*client.Client, error) {
	clients := map[bool]*client.Client{}
	for _, short := range []bool{false, true} {
		name, options := w.Name+"/long", []client.Option(nil)
		if short {
			name, options = w.Name+"/short", append(options, client.SessionTTL(shortSession))
		}
		options = append(options, client.Holder(name), client.GRPC(w.recorder.DialOptions(name)...))
		c, err := client.Dial(context.Background(), w.Endpoints, options...)
		if err != nil {
			return nil, err
		}
		clients[short] = c
	}
	return clients, nil
}

// report prints what was done so far, again and again.
func (w *worker) report(stdout io.Writer, done <-chan struct{}) {
	encoder := json.NewEncoder(stdout)
	tell := func() {
		w.mu.Lock()
		s := WorkerStats{Operations: w.operations.Load(), Complaints: w.complaints}
		w.mu.Unlock()
		_ = encoder.Encode(s) // nobody is left to tell
	}
	for {
		select {
		case <-time.After(reportEvery):
			tell()
		case <-done:
			tell()
			return
		}
	}
}

func (w *worker) complain(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.complaints) < maxComplaints {
		w.complaints = append(w.complaints, fmt.Sprintf(format, args...))
	}
}

// write writes the history down.
func (w *worker) write() error {
	h := w.recorder.History()
	h.Beliefs = append(h.Beliefs, w.beliefs...)
	f, err := os.Create(w.History)
	if err != nil {
		return fmt.Errorf("write history: %w", err)
	}
	if err := errors.Join(h.Write(f), f.Close()); err != nil {
		return fmt.Errorf("write history %s: %w", w.History, err)
	}
	return nil
}

func (w *worker) over() bool {
	select {
	case <-w.stopping:
		return true
	default:
		return false
	}
}

// hand is one goroutine of a client process.
type hand struct {
	*worker
	client *client.Client
	id     string
	rng    *rand.Rand // owned by the goroutine
}

// work repeats the steps of a role until the process is told to stop. The last
// step is seen to its end.
func (h *hand) work(r role) {
	for !h.over() {
		began := h.clock.now()
		ctx, cancel := context.WithTimeout(context.Background(), callLimit)
		err := r.step(ctx, h)
		if err != nil && !ordinary(err) {
			h.complain("%s (%s): %v", h.id, r.name, err)
		}
		cancel()
		if took := h.clock.now() - began; took > stepLimit {
			h.complain("%s (%s): it took %v, allowed are %v", h.id, r.name, took, stepLimit)
		}
		h.sleep(2 * h.Pace)
	}
}

// sleep sleeps for up to d, or until the process is told to stop.
func (h *hand) sleep(d time.Duration) {
	select {
	case <-time.After(time.Duration(h.rng.Float64() * float64(d))):
	case <-h.stopping:
	}
}

// ordinary errors are what clients have to expect while a cluster is being
// broken. That a call was not answered in time is not among them.
func ordinary(err error) bool {
	for _, e := range []error{client.ErrBusy, client.ErrLost, client.ErrNotHeld, client.ErrOverloaded, client.ErrSession, client.ErrClosed, client.ErrTimeout, client.ErrUnavailable} {
		if errors.Is(err, e) {
			return !errors.Is(err, errLate)
		}
	}
	return false
}
