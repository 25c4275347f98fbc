package client

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/grpc"

	apiv1 "github.com/locknode/locknode/api/v1"
)

// Option sets something of a client. [Dial] and the node check the values.
type Option func(*config)

type config struct {
	holder         string
	ttl            time.Duration
	labels         []*apiv1.Label
	log            *slog.Logger
	connectTimeout time.Duration
	now            func() time.Duration
	resolve        func(ctx context.Context, host string) ([]string, error)
	cluster        string
	grpc           []grpc.DialOption
	trace          GrantTrace
	tls            *security // nil: plain text
	token          func() string
	tokenGiven     bool
	plainToken     bool
}

// Holder is the name of the client, which is shown to people as the holder of its locks; at
// most 128 bytes, unless the cluster's limits differ. The default is "program@host:pid".
func Holder(name string) Option { return func(c *config) { c.holder = name } }

// SessionTTL is how long the client's grants outlast it; 10 s by default. It also is
// how long its grants stay valid for a client without a network. It must be 1 s to 24 h,
// unless the cluster's limits differ.
func SessionTTL(d time.Duration) Option { return func(c *config) { c.ttl = d } }

// Labels are facts about the client, for people: at most 32, of 256 bytes each, unless the
// cluster's limits differ.
func Labels(labels map[string]string) Option {
	return func(c *config) {
		c.labels = nil
		for k, v := range labels {
			c.labels = append(c.labels, &apiv1.Label{Key: k, Value: v})
		}
		slices.SortFunc(c.labels, func(a, b *apiv1.Label) int { return strings.Compare(a.GetKey(), b.GetKey()) })
	}
}

// Logger gets the client's log lines. By default, and with nil, nothing is logged.
func Logger(l *slog.Logger) Option { return func(c *config) { c.log = l } }

// ConnectTimeout makes an operation fail with [ErrUnavailable] when for this
// long no node was reachable that is the leader or knows it. With zero, the default,
// only the contexts of the callers end the wait. It has no effect on a client of an
// embedded node.
func ConnectTimeout(d time.Duration) Option { return func(c *config) { c.connectTimeout = d } }

// Clock replaces the clock by which the client decides how long grants are valid. It is for
// tests: under testing/synctest pass one that is made of time.Since. The clock must never go
// back, must count the time in which the machine is suspended, and must be safe for
// concurrent use.
func Clock(now func() time.Duration) Option { return func(c *config) { c.now = now } }

// Resolver replaces how the host names of endpoints and members are looked up: it returns
// the IP addresses of a host, is called by several goroutines at once, and must return soon
// after ctx has ended. The default is that of package net. It has no effect on a client of
// an embedded node.
func Resolver(lookup func(ctx context.Context, host string) ([]string, error)) Option {
	return func(c *config) { c.resolve = lookup }
}

// ClusterID ties the client to the cluster with this ID, which [Client.Status] and `locknode
// status -o json` show: it uses no node of another cluster. Without it the
// client is tied to the cluster of the first node that it uses. It has at most 256 bytes,
// and no effect on a client of an embedded node.
func ClusterID(id string) Option { return func(c *config) { c.cluster = id } }

// GRPC adds options to every connection that the client makes, after its
// own: interceptors, a dialer. It has no effect on a client of an embedded node. It is not
// stable yet: how the client uses gRPC may change in any release.
func GRPC(opts ...grpc.DialOption) Option {
	return func(c *config) { c.grpc = append(c.grpc, opts...) }
}

// GrantTrace has functions that are called when a grant becomes valid for a client and when
// it ends. Each may be nil. They are called by several goroutines at once, without a mutex,
// must not block, and must not call methods of the grant other than Name and Token.
//
// It is not stable yet: it may get functions, or another form, in any release.
type GrantTrace struct {
	// Granted is called before the acquire returns the grant. If the grant is lost at once,
	// or was before its answer arrived, it may be called after Ended.
	Granted func(*Grant)
	// Ended is called once for each grant: with nil when it is unlocked, before
	// the release is sent, and with a [*LostError] when it is lost.
	Ended func(*Grant, error)
}

// Trace adds a trace: for metrics, and for tests that check which grants were valid when.
// The traces of several such options are all called.
func Trace(t GrantTrace) Option {
	return func(c *config) { c.trace = c.trace.and(t) }
}

// and returns a trace that calls both.
func (t GrantTrace) and(other GrantTrace) GrantTrace {
	first, second := t, other
	if first.Granted != nil && second.Granted != nil {
		t.Granted = func(g *Grant) { first.Granted(g); second.Granted(g) }
	} else if first.Granted == nil {
		t.Granted = second.Granted
	}
	if first.Ended != nil && second.Ended != nil {
		t.Ended = func(g *Grant, err error) { first.Ended(g, err); second.Ended(g, err) }
	} else if first.Ended == nil {
		t.Ended = second.Ended
	}
	return t
}

func newConfig(opts []Option) config {
	cfg := config{
		holder: defaultHolder(),
		ttl:    10 * time.Second,
		log:    slog.New(slog.DiscardHandler),
		now:    now,
	}
	for _, o := range opts {
		o(&cfg)
	}
	if cfg.log == nil {
		cfg.log = slog.New(slog.DiscardHandler)
	}
	if cfg.now == nil {
		cfg.now = now
	}
	if cfg.tls != nil {
		cfg.tls.open(cfg.log)
	}
	if cfg.resolve == nil {
		cfg.resolve = net.DefaultResolver.LookupHost
	}
	return cfg
}

func defaultHolder() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	name := fmt.Sprintf("%s@%s:%d", filepath.Base(os.Args[0]), host, os.Getpid())
	return strings.ToValidUTF8(name[:min(len(name), 128)], "")
}

// LockOption changes one acquire of a lock that belongs to the client's session:
// [Client.Lock], [Client.TryLock], [Client.Do], and what is built on them.
type LockOption interface{ forLock(*acquireOptions) }

// DetachedOption changes one [Detached.Acquire].
type DetachedOption interface{ forDetached(*acquireOptions) }

// AcquireOption changes any acquire: it is a LockOption and a DetachedOption.
type AcquireOption interface {
	LockOption
	DetachedOption
}

// lockOption, detachedOption and acquireOption implement them.
type (
	lockOption     func(*acquireOptions)
	detachedOption func(*acquireOptions)
	acquireOption  func(*acquireOptions)
)

func (f lockOption) forLock(o *acquireOptions)         { f(o) }
func (f detachedOption) forDetached(o *acquireOptions) { f(o) }
func (f acquireOption) forLock(o *acquireOptions)      { f(o) }
func (f acquireOption) forDetached(o *acquireOptions)  { f(o) }

type acquireOptions struct {
	wait    time.Duration // meaningful if limited
	limited bool
	ttl     time.Duration // 0: as long as the session
	ttlSet  bool
	value   []byte
	delay   time.Duration
	once    []byte
}

// Wait bounds the wait in the queue: after d the acquire fails with [ErrTimeout]. With zero it
// tries once. Without this option a Lock waits until its context ends, and
// [Detached.Acquire] tries once. A TryLock ignores it. A negative d is [ErrInvalid].
func Wait(d time.Duration) AcquireOption {
	return acquireOption(func(o *acquireOptions) { o.wait, o.limited = d, true })
}

// TTL makes the grant end at the latest d after it was given: it is not renewed. It
// ends earlier with its session, as any grant does: when the client is closed, or a TTL of
// the session after its process has ended. Without this option the grant lasts as long as
// the session. A d that is not positive, or out of the cluster's range, is [ErrInvalid].
func TTL(d time.Duration) LockOption {
	return lockOption(func(o *acquireOptions) { o.ttl, o.ttlSet = d, true })
}

// Value is stored with the grant for others to read; at most 4 KiB, unless the cluster's
// limits differ: more is [ErrInvalid].
func Value(v []byte) AcquireOption {
	v = slices.Clone(v)
	return acquireOption(func(o *acquireOptions) { o.value = v })
}

// DelayAfterLoss keeps the lock free of holders for d if the grant is lost by time or
// because the client was closed, so that what its holder has sent can still arrive. There is
// no delay after an Unlock and after an operator's force-release. A negative d
// is [ErrInvalid].
func DelayAfterLoss(d time.Duration) AcquireOption {
	return acquireOption(func(o *acquireOptions) { o.delay = d })
}

// RequestID makes a detached acquire repeatable: another call with the same ID, from any
// client, and the same lock, ttl, delay and value, gets the place in the queue or the grant of the
// first one. For five minutes after that grant has ended, the ID is answered with
// [ErrNotHeld]: another grant needs another ID. A refusal is not remembered: a loop that
// tries until the lock is free needs one ID. The ID must be random.
func RequestID(id [16]byte) DetachedOption {
	return detachedOption(func(o *acquireOptions) { o.once = id[:] })
}

// The longest texts and values that are sent. The cluster has smaller limits of its own;
// these keep one bad argument from breaking the stream that all operations share.
const (
	maxName  = 4 << 10
	maxValue = 64 << 10
)

// check returns an ErrInvalid for options that are not valid.
func (o *acquireOptions) check(w what) error {
	switch {
	case o.limited && o.wait < 0:
		return invalid(w, "wait: is %v, must not be negative", o.wait)
	case o.ttlSet && o.ttl <= 0:
		return invalid(w, "ttl: is %v, must be positive", o.ttl)
	case o.delay < 0:
		return invalid(w, "delay after loss: is %v, must not be negative", o.delay)
	case len(o.value) > maxValue:
		return invalid(w, "value: is %d bytes long, must be at most %d", len(o.value), maxValue)
	}
	return checkText(w, "name", w.object, true)
}

// checkText returns an ErrInvalid for a text that cannot be sent.
func checkText(w what, field, text string, required bool) error {
	switch {
	case required && text == "":
		return invalid(w, "%s: is empty, must not be", field)
	case len(text) > maxName:
		return invalid(w, "%s: is %d bytes long, must be at most %d", field, len(text), maxName)
	case !utf8.ValidString(text):
		return invalid(w, "%s: is %.64q, must be UTF-8", field, text)
	}
	return nil
}

// ReadOption changes one [Client.IsLocked] or [Client.Get].
type ReadOption func(*readOptions)

type readOptions struct {
	stale time.Duration
}

// Stale lets any node answer at once from its own table, if that is not older
// than d. The default, and zero, is a linearizable read: it sees every operation that was
// answered before it began. A negative d is [ErrInvalid].
func Stale(d time.Duration) ReadOption {
	return func(o *readOptions) { o.stale = d }
}
