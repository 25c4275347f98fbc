//go:build unix

package chaos

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/locknode/locknode/internal/proof/proc"
)

// DrillOptions of a drill with guarded sets.
type DrillOptions struct {
	Binary    string // the locknode executable; default: the one that runs now
	Nodes     int    // default 3
	Processes int    // default 4
	Dir       string // default: a temporary directory
	Adds      int    // how many numbers are added; default 100,000
	Pauses    int    // how many holders are paused; default one for each 2,000 adds, 4 at least
	Unguarded bool   // the resource does not check tokens
	Progress  func(Progress)
}

// DrillResult is what came out of it.
type DrillResult struct {
	Guarded bool          `json:"guarded"`
	Adds    int           `json:"adds"`
	Sets    int           `json:"sets"`
	Pauses  int           `json:"pauses"`
	Refused int           `json:"refused"` // requests with a token that was too small
	Lost    int           `json:"lost"`    // numbers whose adding was acknowledged, and which are not there
	Took    time.Duration `json:"took_ns"`
	Dir     string        `json:"dir"`
}

// OK reports whether the locks and the tokens protected the sets. Nothing is
// promised without tokens.
func (r *DrillResult) OK() bool { return r.Lost == 0 || !r.Guarded }

// WriteText writes the result for people.
func (r *DrillResult) WriteText(w io.Writer) error {
	tokens := "compares tokens"
	if !r.Guarded {
		tokens = "does not look at tokens"
	}
	_, err := fmt.Fprintf(w, `%d numbers were added to %d sets behind locks, in %v; the resource %s
paused    %d holders between reading and writing, each for longer than its session lasts
refused   %d requests with a token that was too small
lost      %d numbers
`, r.Adds, r.Sets, r.Took.Round(time.Second), tokens, r.Pauses, r.Refused, r.Lost)
	return err
}

// pausedFor is how long a holder is paused: until its lock has been given away and
// others have had the time to use it.
const pausedFor = drillSession + 700*time.Millisecond

// Validate reports every fault of the options at once, each with what is allowed.
func (o DrillOptions) Validate() error { return o.complete() }

func (o *DrillOptions) complete() error {
	var faults []error
	if o.Binary == "" {
		self, err := os.Executable()
		if err != nil {
			return fmt.Errorf("find the executable: %w", err)
		}
		o.Binary = self
	}
	if o.Nodes == 0 {
		o.Nodes = 3
	}
	if o.Processes == 0 {
		o.Processes = 4
	}
	if o.Adds == 0 {
		o.Adds = 100_000
	}
	if o.Pauses == 0 {
		o.Pauses = max(4, o.Adds/2000)
	}
	if o.Nodes < 1 || o.Nodes > 9 {
		faults = append(faults, fmt.Errorf("nodes: is %d, must be 1 to 9", o.Nodes))
	}
	if o.Processes < 2 || o.Processes > 20 {
		faults = append(faults, fmt.Errorf("clients %d: 2 to 20 are allowed", o.Processes))
	}
	if o.Adds < 100 || o.Adds > 10_000_000 {
		faults = append(faults, fmt.Errorf("adds %d: 100 to 10000000 are allowed", o.Adds))
	}
	return errors.Join(faults...)
}

// drill is one drill.
type drill struct {
	o       DrillOptions
	sets    *sets
	workers []*drillProcess

	mu     sync.Mutex // guards pauses
	pauses int
}

// drillProcess is a client process of the drill, seen from its parent.
type drillProcess struct {
	*proc.Helper
	d  *drill
	wg sync.WaitGroup // pauses under way

	mu    sync.Mutex // guards what follows
	line  []byte
	added int
}

// RunDrill lets client processes add numbers to sets behind locks, pauses holders between
// reading and writing, and counts what is lost.
func RunDrill(ctx context.Context, o DrillOptions) (*DrillResult, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	temporary := o.Dir == ""
	if temporary {
		dir, err := os.MkdirTemp("", "locknode-drill-")
		if err != nil {
			return nil, err
		}
		o.Dir = dir
	}
	r, err := runDrill(ctx, o)
	if err != nil && temporary {
		err = errors.Join(err, os.RemoveAll(o.Dir))
	}
	return r, err
}

func runDrill(ctx context.Context, o DrillOptions) (*DrillResult, error) {
	d := &drill{o: o, sets: newSets(!o.Unguarded)}
	start, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	cluster, err := proc.Start(start, proc.Options{Binary: o.Binary, Nodes: o.Nodes, Dir: o.Dir})
	if err != nil {
		return nil, err
	}
	defer func() { _ = cluster.Close() }() // it kills what runs, and the directory is not its own
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	var serving sync.WaitGroup
	serving.Go(func() { d.sets.serve(l) })
	began := time.Now()
	err = errors.Join(d.work(ctx, cluster.Endpoints(), l.Addr().String()), l.Close())
	serving.Wait()
	if err != nil {
		return nil, err
	}
	r := &DrillResult{Guarded: !o.Unguarded, Adds: o.Adds, Pauses: d.pauses, Refused: d.sets.refused, Took: time.Since(began), Dir: o.Dir}
	r.Lost, r.Sets = d.sets.missing(o.Adds)
	return r, nil
}

// work runs the client processes to their end.
func (d *drill) work(ctx context.Context, endpoints []string, sets string) error {
	defer func() {
		for _, w := range d.workers {
			if w.Running() {
				_ = w.Kill() // fails only for one that has ended by now
			}
			w.wg.Wait()
		}
	}()
	for i := range d.o.Processes {
		if err := d.launch(i, endpoints, sets); err != nil {
			return err
		}
	}
	began := time.Now()
	for _, w := range d.workers {
		for running := true; running; {
			select {
			case <-w.Exited():
				running = false
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-time.After(100 * time.Millisecond):
				d.tell(began)
			}
		}
		end, cancel := context.WithTimeout(context.Background(), time.Second)
		err := w.Finish(end) // it has ended: how?
		cancel()
		if err != nil {
			return err
		}
	}
	return nil
}

func (d *drill) launch(i int, endpoints []string, sets string) error {
	config, err := json.Marshal(DrillWorkerConfig{
		Name: fmt.Sprintf("drill %d", i+1), Endpoints: endpoints, Sets: sets,
		Number: i, Processes: d.o.Processes, Adds: d.o.Adds,
		PauseEvery: max(1, d.o.Adds/d.o.Pauses-5*i), // not all at the same time
	})
	if err != nil {
		return err
	}
	w := &drillProcess{d: d}
	w.Helper, err = proc.StartHelper(proc.HelperOptions{
		Name: fmt.Sprintf("drill process %d", i+1), LogPath: filepath.Join(d.o.Dir, fmt.Sprintf("drill-%d.log", i+1)), Stdout: w,
		Binary: d.o.Binary, Args: []string{"chaos", "worker", "--drill", string(config)},
	})
	if err != nil {
		return err
	}
	d.workers = append(d.workers, w)
	return nil
}

// Write takes what the process prints, and lets it go on when it has paused.
func (w *drillProcess) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.line = append(w.line, p...)
	for {
		line, rest, ok := bytes.Cut(w.line, []byte("\n"))
		if !ok {
			return len(p), nil
		}
		if string(line) == pausing {
			w.wg.Go(w.goOn)
		} else if n, err := strconv.Atoi(string(line)); err == nil {
			w.added = n
		}
		w.line = rest
	}
}

// goOn lets the process go on after a while.
func (w *drillProcess) goOn() {
	w.d.mu.Lock()
	w.d.pauses++
	w.d.mu.Unlock()
	select {
	case <-time.After(pausedFor):
		_ = w.Resume() // fails only for one that has ended by now
	case <-w.Exited():
	}
}

func (d *drill) tell(began time.Time) {
	if d.o.Progress == nil {
		return
	}
	p := Progress{Left: -1, Doing: "adding numbers"}
	d.mu.Lock()
	p.Faults = d.pauses
	d.mu.Unlock()
	for _, w := range d.workers {
		w.mu.Lock()
		p.Operations += int64(w.added)
		w.mu.Unlock()
	}
	if p.Operations > 0 {
		p.Left = time.Duration(float64(time.Since(began)) * (float64(d.o.Adds)/float64(p.Operations) - 1))
	}
	d.o.Progress(p)
}
