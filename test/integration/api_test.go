//go:build unix

package integration

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/client"
	"github.com/locknode/locknode/internal/proof/proc"
)

// The roads to a lock: HTTP, gRPC, Go and the command line, on any node.

// lockPath is the path of a lock in the HTTP API.
func lockPath(name string) string {
	parts := strings.Split(name, "/")
	for i, p := range parts {
		parts[i] = url.PathEscape(p)
	}
	return "/v1/locks/" + strings.Join(parts, "/")
}

func TestAnyNodeAcceptsAnyHTTPRequest(t *testing.T) {
	t.Parallel()
	c := sharedCluster(t)
	var nodes []*web
	for _, n := range c.Nodes() {
		nodes = append(nodes, browse(t, n.HTTP()))
	}
	for i, n := range c.Nodes() {
		// Every step goes to another node than the one before.
		a, b, d := nodes[i], nodes[(i+1)%3], nodes[(i+2)%3]
		name := fmt.Sprintf("%s/%s ö?", t.Name(), n.ID)
		got := answered[grantView](t, a.do(t, "/v1/acquire", object{"name": name, "ttl": "30s", "holder": "alice", "value": "v"}), 200)
		if expires, err := time.ParseDuration(got.ExpiresIn); got.Name != name || got.Token == 0 || err != nil || expires > 30*time.Second {
			t.Errorf("acquire on %s: got %+v", n.ID, got)
		}
		for _, other := range nodes {
			seen := answered[lockView](t, other.do(t, lockPath(name), nil), 200)
			if !seen.Held || seen.Holders[0].Token != got.Token || seen.Holders[0].Holder != "alice" || seen.Holders[0].Value != "v" {
				t.Errorf("acquired on %s, seen on another node: %+v", n.ID, seen)
			}
		}
		busy := answered[errorView](t, b.do(t, "/v1/acquire", object{"name": name}), 409)
		if busy.Error.Code != "busy" || len(busy.Error.Holders) != 1 || busy.Error.Holders[0].Holder != "alice" {
			t.Errorf("acquire of a held lock: got %+v, want busy and alice", busy)
		}
		timeout := answered[errorView](t, d.do(t, "/v1/acquire", object{"name": name, "wait": "20ms"}), 409)
		if timeout.Error.Code != "timeout" {
			t.Errorf("wait for a held lock: got %+v, want timeout", timeout)
		}
		answered[grantView](t, b.do(t, "/v1/renew", object{"name": name, "token": got.Token, "ttl": "1m"}), 200)
		page := answered[pageView](t, d.do(t, "/v1/locks?prefix="+url.QueryEscape(name), nil), 200)
		if len(page.Locks) != 1 || page.Locks[0].Name != name {
			t.Errorf("list: got %+v, want the lock", page)
		}
		wrong := answered[errorView](t, d.do(t, "/v1/release", object{"name": name, "token": got.Token + 1000}), 404)
		if wrong.Error.Code != "not_held" {
			t.Errorf("release with a wrong token: got %+v, want not_held", wrong)
		}
		answered[grantView](t, b.do(t, "/v1/release", object{"name": name, "token": got.Token}), 200)
		if seen := answered[lockView](t, d.do(t, lockPath(name), nil), 200); seen.Held {
			t.Errorf("released on one node, still held on another: %+v", seen)
		}
		again := answered[grantView](t, d.do(t, "/v1/acquire", object{"name": name}), 200)
		if again.Token <= got.Token {
			t.Errorf("token %d after %d", again.Token, got.Token)
		}
		answered[object](t, a.do(t, "/v1/force-release", object{"name": name, "token": again.Token, "reason": "test"}), 200)
		if a := a.do(t, "/readyz", nil); a.status != 200 {
			t.Errorf("readyz of %s: got %d %s", n.ID, a.status, a.body)
		}
		stale := answered[lockView](t, a.do(t, lockPath(name)+"?stale=10s", nil), 200)
		if age, err := time.ParseDuration(stale.Age); err != nil || age < 0 || age > 10*time.Second {
			t.Errorf("stale read on %s: got age %q, want at most 10s", n.ID, stale.Age)
		}
	}
}

// Unary calls, for programs that use gRPC without the client of this project.
func TestAnyNodeAcceptsAnyGRPCRequest(t *testing.T) {
	t.Parallel()
	c := sharedCluster(t)
	ctx := within(t, patience)
	var token uint64
	for i, n := range append(c.Nodes(), c.Nodes()...) {
		conn, err := n.Conn()
		must(t, err)
		locks := apiv1.NewLocksClient(conn)
		if i%2 == 0 {
			res, err := locks.Acquire(ctx, &apiv1.AcquireRequest{Locks: []*apiv1.Want{{Name: t.Name()}}, TtlNs: int64(time.Minute)})
			must(t, err)
			if res.GetToken() <= token {
				t.Errorf("acquire on %s: token %d after %d", n.ID, res.GetToken(), token)
			}
			token = res.GetToken()
			continue
		}
		got, err := locks.Get(ctx, &apiv1.GetRequest{Name: t.Name()})
		must(t, err)
		if h := got.GetLock().GetHolders(); len(h) != 1 || h[0].GetToken() != token {
			t.Errorf("get on %s: got %v, want token %d", n.ID, got, token)
		}
		_, err = locks.Acquire(ctx, &apiv1.AcquireRequest{Locks: []*apiv1.Want{{Name: t.Name()}}, TtlNs: int64(time.Minute)})
		if apiv1.CodeOf(err) != apiv1.CodeBusy {
			t.Errorf("acquire of a held lock on %s: got %v, want busy", n.ID, err)
		}
		_, err = locks.Release(ctx, &apiv1.ReleaseRequest{Name: t.Name(), Token: token})
		must(t, err)
	}
}

// A Go client that knows only one node can use the whole cluster through it.
func TestClientOfOneNodeHasTheWholeCluster(t *testing.T) {
	t.Parallel()
	c := sharedCluster(t)
	var last uint64
	for _, n := range c.Nodes() {
		cl := dial(t, []string{n.API()})
		g := lock(t, cl, t.Name())
		if g.Token() <= last {
			t.Errorf("client of %s: token %d after %d", n.ID, g.Token(), last)
		}
		last = g.Token()
		must(t, g.SetValue(within(t, patience), []byte(n.ID)))
		for _, other := range c.Nodes() {
			if h := holder(t, dial(t, []string{other.API()}), t.Name()); string(h.Value) != n.ID || h.Token != last {
				t.Errorf("held through %s, seen through %s: %+v", n.ID, other.ID, h)
			}
		}
		must(t, g.Unlock())
	}
}

// The flow of the README: locks of the command line are seen with curl, and the other way
// round.
func TestCommandLineAndHTTPSeeOneAnother(t *testing.T) {
	t.Parallel()
	c := sharedCluster(t)
	name := t.Name()
	first := into[grantView](t, locknode(t, c.Endpoints()[:1], "acquire", name, "--ttl", "30s", "--holder", "alice", "-o", "json"))
	second := locknode(t, c.Endpoints()[1:2], "acquire", name, "--holder", "bob").ends(t, exitNotAcquired)
	if !strings.Contains(second.stderr.String(), "alice") {
		t.Errorf("the second acquire says %q, want that alice holds it", second.stderr.String())
	}
	curl := browse(t, c.Nodes()[2].HTTP())
	seen := answered[lockView](t, curl.do(t, lockPath(name), nil), 200)
	if !seen.Held || seen.Holders[0].Token != first.Token || seen.Holders[0].Holder != "alice" {
		t.Errorf("HTTP on another node: got %+v, want alice with token %d", seen, first.Token)
	}
	locknode(t, c.Endpoints(), "release", name, strconv.FormatUint(first.Token+1000, 10)).ends(t, 1)
	if seen := answered[lockView](t, curl.do(t, lockPath(name), nil), 200); !seen.Held {
		t.Error("a release with a wrong token has released the lock")
	}
	locknode(t, c.Endpoints(), "release", name, strconv.FormatUint(first.Token, 10)).ends(t, 0)
	if seen := answered[lockView](t, curl.do(t, lockPath(name), nil), 200); seen.Held {
		t.Errorf("after the release: got %+v, want it free", seen)
	}

	// The other way round, without a release: it is free after its TTL.
	const ttl = time.Second
	asked := time.Now()
	got := answered[grantView](t, curl.do(t, "/v1/acquire", object{"name": name, "ttl": ttl.String(), "holder": "carol"}), 200)
	shown := into[lockView](t, locknode(t, c.Endpoints(), "get", name, "-o", "json"))
	if time.Since(asked) < ttl && (!shown.Held || shown.Holders[0].Token != got.Token) {
		t.Errorf("acquired over HTTP, the command line shows %+v", shown)
	}
	eventually(t, "the lock is free after its TTL", func() bool {
		held := answered[lockView](t, curl.do(t, lockPath(name), nil), 200).Held
		if lived := time.Since(asked); !held && lived < ttl {
			t.Errorf("free after %v, its TTL was %v", lived, ttl)
		}
		return !held
	})
}

func TestStaleReleaseIsRefusedOnEveryRoad(t *testing.T) {
	t.Parallel()
	c := sharedCluster(t)
	cl := dial(t, c.Endpoints())
	name := t.Name()
	old := detach(t, cl, name)
	must(t, cl.Detached().Release(within(t, patience), name, old))
	g := lock(t, cl, name)

	if err := cl.Detached().Release(within(t, patience), name, old); !errors.Is(err, client.ErrNotHeld) {
		t.Errorf("Release with an old token: got %v, want ErrNotHeld", err)
	}
	if _, err := cl.Detached().Renew(within(t, patience), name, old, time.Minute); !errors.Is(err, client.ErrNotHeld) {
		t.Errorf("Renew with an old token: got %v, want ErrNotHeld", err)
	}
	if _, err := cl.ForceRelease(within(t, patience), name, old, "test"); !errors.Is(err, client.ErrNotHeld) {
		t.Errorf("ForceRelease with an old token: got %v, want ErrNotHeld", err)
	}
	if err := cl.Detached().Release(within(t, patience), "another "+name, g.Token()); !errors.Is(err, client.ErrNotHeld) {
		t.Errorf("Release of another lock with this token: got %v, want ErrNotHeld", err)
	}
	for _, n := range c.Nodes() {
		a := browse(t, n.HTTP()).do(t, "/v1/release", object{"name": name, "token": old})
		if got := answered[errorView](t, a, 404); got.Error.Code != "not_held" {
			t.Errorf("HTTP release with an old token: got %+v, want not_held", got)
		}
	}
	said := locknode(t, c.Endpoints(), "release", name, strconv.FormatUint(old, 10)).ends(t, 1)
	if !strings.Contains(said.stderr.String(), "not held") {
		t.Errorf("release on the command line with an old token: it says %q, want that it is not held", said.stderr.String())
	}
	must(t, g.Err())
	heldWith(t, cl, name, g.Token())
	must(t, g.Unlock())
}

func TestTheHolderIsNotifiedOfAForceReleaseAtOnce(t *testing.T) {
	t.Parallel()
	c := sharedCluster(t)
	name := t.Name()
	for _, n := range c.Nodes() {
		g := lock(t, dial(t, []string{n.API()}), name)
		locknode(t, c.Endpoints(), "force-release", name, "--token", strconv.FormatUint(g.Token(), 10),
			"--reason", "ticket 4711", "--who", "mallory").ends(t, 0)
		select {
		case <-g.Lost():
		case <-time.After(patience):
			t.Fatal("the holder is not notified")
		}
		var lost *client.LostError
		if !errors.As(g.Err(), &lost) || lost.Reason != client.LostForced || lost.Who != "127.0.0.1 (says: mallory)" || lost.Why != "ticket 4711" {
			t.Errorf("Err of a grant that was force-released: got %v, want by whom and why", g.Err())
		}
	}
}

// A caller that hangs up no longer needs the lock.
func TestAbortedAcquireLeavesNoWaiter(t *testing.T) {
	t.Parallel()
	c := sharedCluster(t)
	watch := dial(t, c.Endpoints())
	for _, n := range c.Nodes() {
		for _, way := range []struct {
			name    string
			acquire func(ctx context.Context, n *proc.Node, name string) error
		}{
			{"http", func(ctx context.Context, n *proc.Node, name string) error {
				_, err := browse(t, n.HTTP()).try(ctx, "/v1/acquire", object{"name": name, "wait": "5m"})
				return err
			}},
			{"grpc", func(ctx context.Context, n *proc.Node, name string) error {
				conn, err := n.Conn()
				if err != nil {
					return err
				}
				_, err = apiv1.NewLocksClient(conn).Acquire(ctx, &apiv1.AcquireRequest{
					Locks: []*apiv1.Want{{Name: name}}, TtlNs: int64(time.Minute), WaitNs: int64(5 * time.Minute)})
				return err
			}},
			{"go", func(ctx context.Context, n *proc.Node, name string) error {
				cl, err := client.Dial(ctx, []string{n.API()})
				if err != nil {
					return err
				}
				defer func() { _ = cl.Close() }()
				_, err = cl.Lock(ctx, name)
				return err
			}},
		} {
			name := fmt.Sprintf("%s/%s/%s", t.Name(), way.name, n.ID)
			g := lock(t, watch, name)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			errs := make(chan error, 1)
			go func() { errs <- way.acquire(ctx, n, name) }()
			awaitWaiters(t, watch, name, 1)
			cancel()
			if err := <-errs; err == nil {
				t.Errorf("%s: the aborted acquire was granted", name)
			}
			awaitWaiters(t, watch, name, 0)
			must(t, g.Unlock())
			if info := get(t, watch, name); info.Held() || info.Waiters != 0 {
				t.Errorf("%s: after all callers have gone: %+v, want it free", name, info)
			}
		}
	}
}

// A script that was interrupted while it waited can wait again.
func TestAbortedAcquireCanBeRetriedUnderItsRequestID(t *testing.T) {
	t.Parallel()
	c := sharedCluster(t)
	watch := dial(t, c.Endpoints())
	name := t.Name()
	g := lock(t, watch, name)
	body := object{"name": name, "wait": "5m", "ttl": "1m", "request_id": name}
	for _, n := range c.Nodes() {
		ctx, cancel := context.WithCancel(t.Context())
		errs := make(chan error, 1)
		api := browse(t, n.HTTP())
		go func() {
			_, err := api.try(ctx, "/v1/acquire", body)
			errs <- err
		}()
		awaitWaiters(t, watch, name, 1)
		cancel()
		if err := <-errs; err == nil {
			t.Error("an aborted acquire was granted")
		}
		awaitWaiters(t, watch, name, 0)
	}
	answers := make(chan webAnswer, 1)
	api, ctx := browse(t, c.Nodes()[0].HTTP()), within(t, patience)
	go func() {
		a, err := api.try(ctx, "/v1/acquire", body)
		if err != nil {
			t.Error(err)
		}
		answers <- a
	}()
	awaitWaiters(t, watch, name, 1)
	must(t, g.Unlock())
	got := answered[grantView](t, <-answers, 200)
	heldWith(t, watch, name, got.Token)
	must(t, watch.Detached().Release(within(t, patience), name, got.Token))
}
