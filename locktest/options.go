package locktest

import (
	"log/slog"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/locknode/locknode/internal/proof/sim"
)

// Option changes a cluster. Without options it is one in a data centre: 200 to
// 300 µs between any two, a heartbeat and election timeout of 200 ms, disks without faults
// that take no time, clocks that run at one rate.
type Option func(*config)

type config struct {
	sim      sim.Options
	random   bool
	logLevel *slog.Level
}

// Seed determines the delays of the network; the default is 1. It does not make a run
// repeat itself exactly, because that also depends on the Go scheduler.
func Seed(seed uint64) Option { return func(c *config) { c.sim.Seed, c.random = seed, false } }

// RandomSeed uses another seed each time and logs it, for [Seed].
func RandomSeed() Option { return func(c *config) { c.random = true } }

// Latency is how long a message takes between any two: at least d, and
// up to d+jitter; without jitter exactly d. The default is 200 µs and 100 µs, which
// Latency(0, 0) also means: if nothing took any time, a program that is always busy
// would stop the time of a bubble. Both must not be negative.
func Latency(d, jitter time.Duration) Option {
	return func(c *config) { c.sim.Latency, c.sim.Jitter = d, jitter }
}

// Timing is the nodes' heartbeat and election timeout, as in their
// configuration: 20 ms to 10 s. The default is 200 ms.
func Timing(d time.Duration) Option { return func(c *config) { c.sim.Timing = d } }

// SnapshotEvery makes nodes write a snapshot each time about this many entries
// were added to the log, and drop older entries: a node that was down for longer gets the
// snapshot. The default is 4096.
func SnapshotEvery(entries uint64) Option {
	return func(c *config) { c.sim.SnapshotThreshold = entries }
}

// Logger gets what nodes and clients log. By default nothing is logged.
func Logger(l *slog.Logger) Option { return func(c *config) { c.sim.Logger = l } }

// Log writes what nodes and clients log from this level on to the log of the
// test, with the time since the cluster was made. It replaces a [Logger].
func Log(level slog.Level) Option { return func(c *config) { c.logLevel = &level } }

func newConfig(t testing.TB, nodes int, opts []Option) (*config, *testLog) {
	c := &config{sim: sim.Options{Nodes: nodes, Seed: 1}}
	for _, o := range opts {
		o(c)
	}
	if c.random {
		c.sim.Seed = rand.Uint64()
		t.Logf("locktest: to have these delays again: locktest.Seed(%d)", c.sim.Seed)
	}
	if c.logLevel == nil {
		return c, nil
	}
	log := &testLog{t: t}
	c.sim.Logger = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: *c.logLevel, ReplaceAttr: log.time(time.Now())}))
	return c, log
}
