//go:build unix

package integration

import (
	"context"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/locknode/locknode/client"
	"github.com/locknode/locknode/internal/proof/proc"
)

// A request whose answer is lost is sent again, and takes effect once.

// lossy is a cluster, a network that loses the answers of its nodes, and a client that does not
// use that network.
func lossy(t *testing.T) (c *proc.Cluster, way *clientNetwork, watch *client.Client) {
	t.Helper()
	c = startCluster(t)
	return c, newClientNetwork(t, c), dial(t, c.Endpoints(), client.Holder("watch"))
}

// awaitHeld waits until the lock is held, and returns the token.
func awaitHeld(t *testing.T, watch *client.Client, name string) uint64 {
	t.Helper()
	eventually(t, name+" is held", func() bool { return get(t, watch, name).Held() })
	return holder(t, watch, name).Token
}

func TestAcquireWhoseAnswerIsLostTakesEffectOnce(t *testing.T) {
	t.Parallel()
	c, way, watch := lossy(t)
	cl := dial(t, c.Endpoints(), way.option())
	must(t, lock(t, cl, "warm").Unlock()) // there is a session and a connection
	for _, how := range []struct {
		name    string
		acquire func(ctx context.Context, name string) (uint64, error)
	}{
		{"session", func(ctx context.Context, name string) (uint64, error) {
			g, err := cl.Lock(ctx, name)
			if err != nil {
				return 0, err
			}
			return g.Token(), nil
		}},
		{"detached", func(ctx context.Context, name string) (uint64, error) {
			g, err := cl.Detached().Acquire(ctx, name, time.Minute)
			return g.Token, err
		}},
	} {
		before := lastToken(t, c)
		type answer struct {
			token uint64
			err   error
		}
		answers := make(chan answer, 1)
		ctx := within(t, patience)
		way.loseAnswers()
		go func() {
			token, err := how.acquire(ctx, how.name)
			answers <- answer{token, err}
		}()
		token := awaitHeld(t, watch, how.name)
		way.breakAll()
		got := <-answers
		if got.err != nil || got.token != token {
			t.Errorf("%s: got token %d, %v, want the first one, %d", how.name, got.token, got.err, token)
		}
		if after := lastToken(t, c); after != before+1 {
			t.Errorf("%s: %d tokens were given, want 1", how.name, after-before)
		}
		heldWith(t, watch, how.name, token)
	}
	agree(t, c)
}

func TestWaiterWhoseAnswerIsLostGetsItsGrantOnce(t *testing.T) {
	t.Parallel()
	c, way, watch := lossy(t)
	name := t.Name()
	held := lock(t, watch, name)
	arrivals := make(chan arrival, 2)
	queueUp(t, dial(t, c.Endpoints(), way.option()), name, 1, arrivals)
	queueUp(t, dial(t, c.Endpoints()), name, 2, arrivals)
	way.loseAnswers()
	must(t, held.Unlock())
	eventually(t, "the first waiter gets the lock", func() bool { return holder(t, watch, name).Token != held.Token() })
	token := holder(t, watch, name).Token
	way.breakAll()
	first := arrive(t, arrivals)
	if first.waiter != 1 || first.grant.Token() != token {
		t.Errorf("waiter %d got token %d, want waiter 1 with token %d", first.waiter, first.grant.Token(), token)
	}
	must(t, first.grant.Unlock())
	second := arrive(t, arrivals)
	if second.grant.Token() != token+1 {
		t.Errorf("the next token is %d, want %d: the wait was granted more than once", second.grant.Token(), token+1)
	}
	must(t, second.grant.Unlock())
}

func TestReleaseWhoseAnswerIsLostTakesEffectOnce(t *testing.T) {
	t.Parallel()
	c, way, watch := lossy(t)
	name := t.Name()
	cl := dial(t, c.Endpoints(), way.option())
	g := lock(t, cl, name)
	way.loseAnswers()
	errs := make(chan error, 1)
	go func() { errs <- g.Unlock() }()
	next := lock(t, watch, name) // as soon as the release has taken effect
	way.breakAll()
	if err := <-errs; err != nil {
		t.Errorf("Unlock whose answer was lost: got %v, want nil: it was released in time", err)
	}
	// Close waits until the release has been sent again and answered.
	must(t, cl.Close())
	heldWith(t, watch, name, next.Token())

	// The same with the command line, which waits until there is an answer.
	r := startRelay(t, leaderOf(t, c))
	r.losing.Store(true)
	release := locknode(t, []string{r.address}, "release", "cli", strconv.FormatUint(detach(t, watch, "cli"), 10))
	eventually(t, "it is released and the answer is lost", func() bool { return !get(t, watch, "cli").Held() && r.lost.Load() > 0 })
	must(t, next.Unlock())
	next = lock(t, watch, "cli")
	r.losing.Store(false)
	release.ends(t, 0)
	heldWith(t, watch, "cli", next.Token())
	agree(t, c)
}

// detach acquires a lock for a minute, without a session.
func detach(t *testing.T, c *client.Client, name string) uint64 {
	t.Helper()
	g, err := c.Detached().Acquire(within(t, patience), name, time.Minute)
	must(t, err)
	return g.Token
}

// A script that is killed while it waits for its answer, or never gets one, can be run again
// with the same request ID, through any node.
func TestRequestIDMakesAnyRetryOneRequest(t *testing.T) {
	t.Parallel()
	c := startCluster(t)
	watch := dial(t, c.Endpoints())
	before := lastToken(t, c)
	r := startRelay(t, leaderOf(t, c))
	r.losing.Store(true)
	deaf := locknode(t, []string{r.address}, "acquire", "cli", "--request-id", "job 1")
	token := awaitHeld(t, watch, "cli")
	must(t, deaf.cmd.Process.Kill())
	<-deaf.exited
	for range 2 {
		again := into[grantView](t, locknode(t, c.Endpoints(), "acquire", "cli", "--request-id", "job 1", "-o", "json"))
		if again.Token != token {
			t.Errorf("the same request ID: got token %d, want %d", again.Token, token)
		}
	}
	busy := locknode(t, c.Endpoints(), "acquire", "cli", "--request-id", "job 2").ends(t, exitNotAcquired)
	if !strings.Contains(busy.stderr.String(), "held") {
		t.Errorf("another request ID: it prints %q, want that the lock is held", busy.stderr.String())
	}

	// Over HTTP the same text is the same request, on every node.
	for _, n := range c.Nodes() {
		a := browse(t, n.HTTP()).do(t, "/v1/acquire", object{"name": "cli", "ttl": "30s", "request_id": "job 1"})
		if got := answered[grantView](t, a, 200); got.Token != token {
			t.Errorf("HTTP on %s with the same request ID: got token %d, want %d", n.ID, got.Token, token)
		}
	}
	if after := lastToken(t, c); after != before+1 {
		t.Errorf("%d tokens were given, want 1", after-before)
	}
}

// An HTTP request through a connection that breaks after it took effect.
func TestHTTPAcquireWhoseAnswerIsLostTakesEffectOnce(t *testing.T) {
	t.Parallel()
	c, _, watch := lossy(t)
	before := lastToken(t, c)
	for i, n := range c.Nodes() {
		p := startProxy(t, n.HTTP())
		name := t.Name() + n.ID
		body := object{"name": name, "ttl": "1m", "request_id": name}
		errs := make(chan error, 1)
		ctx := within(t, patience)
		lossy := browse(t, p.address())
		p.loseAnswers()
		go func() {
			_, err := lossy.try(ctx, "/v1/acquire", body)
			errs <- err
		}()
		token := awaitHeld(t, watch, name)
		p.breakAll()
		if err := <-errs; err == nil {
			t.Error("the answer was not lost")
		}
		retry := browse(t, c.Nodes()[(i+1)%3].HTTP())
		if got := answered[grantView](t, retry.do(t, "/v1/acquire", body), 200); got.Token != token {
			t.Errorf("the retry on another node than %s: got token %d, want %d", n.ID, got.Token, token)
		}
		heldWith(t, watch, name, token)
	}
	if after := lastToken(t, c); after != before+3 {
		t.Errorf("%d tokens were given, want 3", after-before)
	}
}
