package client

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	apiv1 "github.com/locknode/locknode/api/v1"
)

const (
	testSecret  = "lnk_first"
	otherSecret = "lnk_other"
)

// changing is an access token that can be replaced.
type changing struct {
	text  atomic.Pointer[string]
	asked atomic.Int64
}

func newChanging(secret string) *changing {
	c := &changing{}
	c.text.Store(&secret)
	return c
}

func (c *changing) get() string {
	c.asked.Add(1)
	return *c.text.Load()
}

func (c *changing) set(secret string) { c.text.Store(&secret) }

func TestTokenIsShownWithEveryCallAndStream(t *testing.T) {
	t.Parallel()
	r := newRing(t, 3)
	r.require(testSecret)
	secret := newChanging(testSecret + "\n") // as it stands in a file
	c := r.dial(r.nodes, Token(secret.get))
	mustUnlock(t, mustLock(t, c, "a"))
	if _, err := c.Members(t.Context()); err != nil {
		t.Errorf("Members: %v", err)
	}
	if _, err := c.Status(t.Context()); err != nil {
		t.Errorf("Status: %v", err)
	}
	if n := secret.asked.Load(); n > 3 {
		t.Errorf("the token was asked for %d times, want once for each of 3 connections", n)
	}
}

// notForEver ends a call that is retried for ever. It says nothing about speed.
func notForEver(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestWrongTokenIsRefusedAtOnce(t *testing.T) {
	t.Parallel()
	r := newRing(t, 3)
	r.require(testSecret)
	for name, opts := range map[string][]Option{
		"another token": {Token(func() string { return otherSecret })},
		"an empty one":  {Token(func() string { return "" })},
		"none":          nil,
		"not a text":    {Token(func() string { return "two\nlines" })},
		"too long":      {Token(func() string { return strings.Repeat("x", 2000) })},
	} {
		c := r.dial(r.nodes, opts...)
		calls := map[string]func(context.Context) error{
			"Lock":     func(ctx context.Context) error { _, err := c.Lock(ctx, "a"); return err },
			"IsLocked": func(ctx context.Context) error { _, err := c.IsLocked(ctx, "a"); return err },
			"Status":   func(ctx context.Context) error { _, err := c.Status(ctx); return err },
			"Members":  func(ctx context.Context) error { _, err := c.Members(ctx); return err },
		}
		for call, do := range calls {
			err := do(notForEver(t))
			if !errors.Is(err, ErrUnauthenticated) || errors.Is(err, ErrUnavailable) {
				t.Fatalf("%s, %s: %v, want ErrUnauthenticated", name, call, err)
			}
			if err != nil && (strings.Contains(err.Error(), otherSecret) || strings.Contains(err.Error(), "xxxx")) {
				t.Errorf("%s, %s: the error has the secret: %v", name, call, err)
			}
			if code := apiv1.CodeOf(err).ExitCode(); code != 77 {
				t.Errorf("%s, %s: exit code %d, want 77", name, call, code)
			}
		}
	}
}

// With auth.open: [status] only the stream is refused.
func TestWrongTokenIsRefusedWhereTheStatusIsOpen(t *testing.T) {
	t.Parallel()
	r := newRing(t, 3)
	r.open = true
	r.require(testSecret)
	c := r.dial(r.nodes, Token(func() string { return otherSecret }))
	if _, err := c.Lock(notForEver(t), "a"); !errors.Is(err, ErrUnauthenticated) {
		t.Errorf("Lock: %v, want ErrUnauthenticated", err)
	}
	if _, err := c.Members(t.Context()); !errors.Is(err, ErrUnauthenticated) {
		t.Errorf("Members: %v, want ErrUnauthenticated", err)
	}
	if _, err := c.Status(t.Context()); err != nil {
		t.Errorf("Status: %v", err)
	}
}

func TestReplacedTokenKeepsWhatIsHeld(t *testing.T) {
	t.Parallel()
	r := newRing(t, 1) // so that there is one connection, for which the token was asked for
	r.require(testSecret)
	secret := newChanging(testSecret)
	c := r.dial(r.nodes, Token(secret.get), SessionTTL(30*time.Second))
	g := mustLock(t, c, "a")
	secret.set(otherSecret)
	if _, err := c.IsLocked(t.Context(), "a"); err != nil {
		t.Errorf("the old token is valid, but: %v", err)
	}
	r.require(otherSecret)
	if held, err := c.IsLocked(t.Context(), "a"); err != nil || !held {
		t.Errorf("IsLocked with the new token: %v, %v", held, err)
	}
	if _, err := c.Members(t.Context()); err != nil {
		t.Errorf("Members with the new token: %v", err)
	}
	other := mustLock(t, c, "b")
	if err := g.Err(); err != nil {
		t.Errorf("the grant from before is lost: %v", err)
	}
	mustUnlock(t, g)
	mustUnlock(t, other)
	if r.operations(otherSecret) == 0 {
		t.Error("no operation was sent with the new token")
	}
}

// Nothing asks for the lock any more while it is held: the keep-alives find the new token.
func TestKeepAlivesTakeTheNewToken(t *testing.T) {
	t.Parallel()
	r := newRing(t, 1)
	r.require(testSecret)
	secret := newChanging(testSecret)
	c := r.dial(r.nodes, Token(secret.get), SessionTTL(6*time.Second))
	g := mustLock(t, c, "a")
	r.require(otherSecret)
	secret.set(otherSecret)
	eventually(t, "a keep-alive with the new token", func() bool { return r.operations(otherSecret) > 0 })
	if err := g.Err(); err != nil {
		t.Errorf("the grant is lost: %v", err)
	}
	mustUnlock(t, g)
}

func TestUnaryCallsTakeTheNewToken(t *testing.T) {
	t.Parallel()
	r := newRing(t, 3)
	r.require(testSecret)
	secret := newChanging(testSecret)
	c := r.dial(r.nodes, Token(secret.get))
	for _, next := range []string{otherSecret, testSecret} {
		if _, err := c.Members(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(leastAsked) // asked for at most so often
		secret.set(next)
		r.require(next)
		if _, err := c.Status(t.Context()); err != nil {
			t.Errorf("Status: %v", err)
		}
	}
}

func TestRevokedTokenLosesItsGrantsInTimeAndSaysWhy(t *testing.T) {
	for name, code := range map[error]apiv1.Code{ErrUnauthenticated: apiv1.CodeUnauthenticated, ErrDenied: apiv1.CodeDenied} {
		synctest.Test(t, func(t *testing.T) {
			k := newCluster(t)
			c := k.client(t, SessionTTL(10*time.Second))
			g := mustLock(t, c, "a")
			k.fault(func(op *apiv1.Operation) fate {
				if op.GetKeepAlive() != nil {
					return fate{refuse: apiv1.NewError(code, "the access token was revoked")}
				}
				return fate{}
			})
			bound := g.Deadline()
			<-g.Lost()
			if late := time.Since(bound); late > time.Second {
				t.Errorf("lost %v after its deadline", late)
			}
			var lost *LostError
			err := g.Err()
			if !errors.As(err, &lost) || lost.Reason != LostRefused || !strings.Contains(lost.Why, "was revoked") {
				t.Errorf("%v, want LostRefused and why", err)
			}
			for _, want := range []error{ErrLost, ErrNotHeld, name} {
				if !errors.Is(err, want) || !errors.Is(context.Cause(g.Context()), want) {
					t.Errorf("%v: is no %v", err, want)
				}
			}
		})
	}
}

// With another access token the session goes on: a lock that was unlocked in between must not
// stay held in it.
func TestUnlockBeforeAnotherTokenIsDoneLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(t)
		c := k.client(t, SessionTTL(10*time.Second))
		g, keeps := mustLock(t, c, "a"), mustLock(t, c, "b")
		var valid atomic.Bool
		k.fault(func(op *apiv1.Operation) fate {
			if op.GetRelease() != nil && !valid.Load() {
				return fate{refuse: apiv1.NewError(apiv1.CodeUnauthenticated, "the access token was revoked")}
			}
			return fate{}
		})
		_ = g.Unlock() // it is done in the background
		time.Sleep(20 * time.Second)
		if k.holder("a") == 0 {
			t.Fatal("the lock is free although its release is refused")
		}
		valid.Store(true)
		time.Sleep(10 * time.Second)
		if token := k.holder("a"); token != 0 {
			t.Errorf("the lock is held with token %d by nobody", token)
		}
		mustUnlock(t, keeps)
	})
}

func TestCloseSaysThatTheSessionCouldNotBeEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(t)
		c := k.client(t)
		mustLock(t, c, "a")
		k.fault(func(op *apiv1.Operation) fate {
			if op.GetEndSession() != nil {
				return fate{refuse: apiv1.NewError(apiv1.CodeUnauthenticated, "the access token was revoked")}
			}
			return fate{}
		})
		if err := c.Close(); !errors.Is(err, ErrUnauthenticated) {
			t.Errorf("Close: %v, want ErrUnauthenticated", err)
		}
	})
}

func TestRefusedKeepAlivesAreForgottenWhenOneIsAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(t)
		c := k.client(t, SessionTTL(10*time.Second))
		g := mustLock(t, c, "a")
		var refused atomic.Int64
		k.fault(func(op *apiv1.Operation) fate {
			if op.GetKeepAlive() != nil && refused.Add(1) <= 2 {
				return fate{refuse: apiv1.NewError(apiv1.CodeUnauthenticated, "the access token is not known")}
			}
			return fate{}
		})
		time.Sleep(time.Minute)
		if err := g.Err(); err != nil || refused.Load() < 3 {
			t.Fatalf("%v after %d keep-alives", err, refused.Load())
		}
		k.setDown(true)
		<-g.Lost()
		var lost *LostError
		if err := g.Err(); !errors.As(err, &lost) || lost.Reason != LostDeadline {
			t.Errorf("%v, want LostDeadline", err)
		}
	})
}

// A session belongs to the identity that opened it. With a token of another name there has to
// be another one.
func TestAnotherIdentityOpensAnotherSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(t)
		c := k.client(t, SessionTTL(10*time.Second))
		g := mustLock(t, c, "a")
		first := g.s.id
		k.fault(func(op *apiv1.Operation) fate {
			if op.GetKeepAlive() != nil && [16]byte(op.GetKeepAlive().GetSession()) == first {
				return fate{refuse: apiv1.NewError(apiv1.CodeDenied, "the session belongs to another")}
			}
			return fate{}
		})
		time.Sleep(4 * time.Second) // a keep-alive comes every third of the TTL
		next := mustLock(t, c, "b")
		if next.s.id == first {
			t.Error("the session of another identity is used")
		}
		if err := g.Err(); err != nil {
			t.Errorf("what is held is lost before its time: %v", err)
		}
		<-g.Lost()
		mustUnlock(t, next)
	})
}

func TestSecretIsNotSentInPlainTextToOthers(t *testing.T) {
	for addr, want := range map[string]bool{
		"127.0.0.1:7400": true, "[::1]:7400": true, "localhost:7400": true,
		"10.0.0.1:7400": false, "n1.example.com:7400": false, "127.0.0.1.example.com:7400": false,
	} {
		for _, tt := range []struct {
			name string
			cfg  config
			want bool
		}{
			{"plain text", config{}, want},
			{"plain text that is allowed", config{plainToken: true}, true},
			{"TLS", config{tls: &security{}}, true},
		} {
			tt.cfg.token = func() string { return testSecret }
			sent, err := newBearer(newCredential(tt.cfg), addr, tt.cfg.plainToken).GetRequestMetadata(t.Context())
			if (err == nil) != tt.want || (sent["authorization"] == "Bearer "+testSecret) != tt.want {
				t.Errorf("%s to %s: sent %v, %v; want %v", tt.name, addr, sent != nil, err, tt.want)
			}
			if err != nil && (!errors.Is(newError(what{verb: "x"}, apiv1.AsError(err)), ErrUnauthenticated) || !strings.Contains(err.Error(), "use TLS")) {
				t.Errorf("%s to %s: %v, want ErrUnauthenticated and the remedy", tt.name, addr, err)
			}
		}
	}
}

func TestSecretIsNotPrinted(t *testing.T) {
	c := newCredential(config{token: func() string { return testSecret }})
	c.current()
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d"} {
		for _, v := range []any{c, newBearer(c, "127.0.0.1:1", false)} {
			if text := fmt.Sprintf(verb, v); strings.Contains(text, "first") {
				t.Errorf("%s prints %s", verb, text)
			}
		}
	}
}

func TestTokenMustBeAFunction(t *testing.T) {
	if _, err := Dial(t.Context(), []string{"a:1"}, Token(nil)); !errors.Is(err, ErrInvalid) {
		t.Errorf("Token(nil): %v, want ErrInvalid", err)
	}
}

// An acquire that may have arrived when its caller's access token was revoked is cancelled as
// soon as there is another one: otherwise its session, which goes on, holds a lock that nobody
// knows of.
func TestAcquireBeforeARevocationLeavesNothingBehind(t *testing.T) {
	for _, detached := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			k := newCluster(t)
			c := k.client(t, SessionTTL(10*time.Second))
			keeps := mustLock(t, c, "keeps the session alive")
			refusal := apiv1.NewError(apiv1.CodeUnauthenticated, "the access token was revoked")
			acquires, cancels := 0, 0
			k.fault(func(op *apiv1.Operation) fate {
				switch {
				case op.GetAcquire() != nil:
					if acquires++; acquires == 1 {
						return fate{refuseAfter: apiv1.NewError(apiv1.CodeUnknownOutcome, "the stream broke")}
					}
					return fate{refuse: refusal}
				case op.GetCancel() != nil:
					if cancels++; cancels < 3 {
						return fate{refuse: refusal}
					}
				}
				return fate{}
			})
			var err error
			if detached {
				_, err = c.Detached().Acquire(t.Context(), "a", time.Hour)
			} else {
				_, err = c.Lock(t.Context(), "a")
			}
			if !errors.Is(err, ErrUnauthenticated) || k.holder("a") == 0 {
				t.Errorf("%v, token %d: want ErrUnauthenticated, and the lock taken", err, k.holder("a"))
			}
			time.Sleep(10 * retryLast)
			if token := k.holder("a"); token != 0 || cancels != 3 {
				t.Errorf("detached %v: after %d cancels the lock is held with token %d", detached, cancels, token)
			}
			mustUnlock(t, keeps)
		})
	}
}
