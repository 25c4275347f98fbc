package simulation

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/client"
	"github.com/locknode/locknode/fsm"
	"github.com/locknode/locknode/internal/proof/history"
	"github.com/locknode/locknode/internal/proof/sim"
)

// In the profile "rights" every client is an identity, token:NAME of its worker. Those with
// the job lose their rights and their access tokens now and then, and get others, by the client of
// some node, which has all rights. What that has to mean for them is judged from the log.

// rightsWithin is how soon a change of rights is in force on every node. What is judged by it is
// what happens while nothing is broken.
const rightsWithin = time.Second

// secretOf returns what a worker's client shows for an access token; guarded by runner.mu.
func (r *runner) secretOf(name string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.secrets[name]
}

func (r *runner) setSecret(name, secret string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.secrets[name] = secret
}

// client returns the client of a name; with rights it proves that it is the identity of that name.
func (r *runner) client(name string, opts ...client.Option) (*client.Client, error) {
	if r.p.Profile == "rights" {
		opts = append(opts, client.PlainTextToken(), client.Token(func() string { return r.secretOf(name) }))
	}
	return r.c.Client(name, opts...)
}

// introduce gives all clients access tokens, and the rights that they begin with.
func (r *runner) introduce(ctx context.Context) error {
	names := []string{"probe"}
	for _, w := range r.p.Workers {
		names = append(names, w.Name)
	}
	for _, name := range names {
		rights := []client.Right{client.RightRead, client.RightLock}
		if r.isPlain(name) {
			rights = append(rights, client.RightForce)
		}
		introduce := func(ctx context.Context, c *client.Client) error {
			if err := r.grantRights(ctx, c, name, client.Rule{Rights: rights}); err != nil {
				return err
			}
			return r.newToken(ctx, c, name)
		}
		err := r.asOperator(ctx, introduce)
		for tries := 0; err != nil && tries < 100; tries++ { // the table has to come to the level first
			sleep(ctx, 100*time.Millisecond)
			err = r.asOperator(ctx, introduce)
		}
		if err != nil {
			return fmt.Errorf("introduce %s: %w", name, err)
		}
	}
	return nil
}

// isPlain says that a client keeps its rights for the whole run.
func (r *runner) isPlain(name string) bool { return !strings.HasPrefix(name, "rights") }

// asOperator does something with the client of a node that runs.
func (r *runner) asOperator(ctx context.Context, do func(context.Context, *client.Client) error) error {
	for _, name := range r.c.Nodes() {
		if n := r.c.Node(name); n != nil && n.Err() == nil {
			c := n.Client()
			return errors.Join(do(ctx, c), ignoreUnavailable(c.Close()))
		}
	}
	return client.ErrUnavailable
}

func policyOf(name string) string { return "w-" + name }

// grantRights replaces the policy of a worker.
func (r *runner) grantRights(ctx context.Context, c *client.Client, name string, rules ...client.Rule) error {
	_, err := c.ChangePolicies(ctx, []client.Policy{{Name: policyOf(name), For: []string{"token:" + name}, Rules: rules}}, nil, 0)
	return err
}

// newToken makes an access token for a worker, which shows it from now on.
func (r *runner) newToken(ctx context.Context, c *client.Client, name string) error {
	_, secret, err := c.CreateAccessToken(ctx, client.NewAccessToken{Name: name})
	if err == nil {
		r.setSecret(name, secret)
	}
	return err
}

// withdraw changes what a worker may lock: all, nothing, or all but one lock.
func (w *worker) withdraw(ctx context.Context, c *client.Client) error {
	both := client.Rule{Rights: []client.Right{client.RightRead, client.RightLock}}
	rules := [][]client.Rule{
		{{Rights: []client.Right{client.RightRead}}},
		{both, {Deny: true, Rights: []client.Right{client.RightLock}, Name: w.name(), Exact: true}},
	}[w.rand.IntN(2)]
	w.operate(ctx, func(ctx context.Context, c *client.Client) error { return w.r.grantRights(ctx, c, w.w.Name, rules...) })
	err := w.insist(ctx, c)
	w.operate(ctx, func(ctx context.Context, c *client.Client) error { return w.r.grantRights(ctx, c, w.w.Name, both) })
	return err
}

// revoke ends all access tokens of a worker, and makes a new one later. Meanwhile the worker
// waits for locks, with and without its session.
func (w *worker) revoke(ctx context.Context, c *client.Client) error {
	var waits sync.WaitGroup
	defer waits.Wait()
	for i := range w.r.p.Locks {
		name := fmt.Sprintf("lock/%d", i)
		waits.Go(func() { w.expect(w.waitFor(ctx, c, name, i%2 == 0)) })
	}
	sleep(ctx, time.Duration(w.rand.Int64N(int64(100*time.Millisecond))))
	w.operate(ctx, func(ctx context.Context, c *client.Client) error { return w.revokeAll(ctx, c, "") })
	err := w.insist(ctx, c)
	w.operate(ctx, func(ctx context.Context, c *client.Client) error { return w.r.newToken(ctx, c, w.w.Name) })
	return err
}

// waitFor waits for a lock, and lets it go.
func (w *worker) waitFor(ctx context.Context, c *client.Client, name string, detached bool) error {
	if !detached {
		g, err := c.Lock(ctx, name, client.Wait(8*time.Second))
		if err != nil {
			return err
		}
		return g.Unlock()
	}
	d, err := c.Detached().Acquire(ctx, name, maxHold/4, client.Wait(8*time.Second))
	if err != nil {
		return err
	}
	return c.Detached().Release(ctx, name, d.Token)
}

// rotate replaces the access token of a worker, which goes on meanwhile.
func (w *worker) rotate(ctx context.Context, c *client.Client) error {
	w.operate(ctx, func(ctx context.Context, c *client.Client) error {
		made, secret, err := c.CreateAccessToken(ctx, client.NewAccessToken{Name: w.w.Name})
		if err != nil {
			return err
		}
		w.r.setSecret(w.w.Name, secret)
		return w.revokeAll(ctx, c, made.Accessor)
	})
	return w.lock(ctx, c)
}

// revokeAll revokes the access tokens of a worker but one. Its sessions are left to run out: what
// an operator kills no client has asked for, and the history would accuse it.
func (w *worker) revokeAll(ctx context.Context, c *client.Client, but string) error {
	tokens, _, err := c.AccessTokens(ctx, "")
	for _, t := range tokens {
		if t.Name == w.w.Name && t.Accessor != but && err == nil {
			_, _, err = c.RevokeAccessToken(ctx, t.Accessor, false, "the simulation wants it")
		}
	}
	return ignoreNotHeld(err)
}

// operate does what an operator does; it may fail while something is broken.
func (w *worker) operate(ctx context.Context, do func(context.Context, *client.Client) error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	w.expect(w.r.asOperator(ctx, do))
}

// insist tries for some seconds to take locks, with a right to them or not.
func (w *worker) insist(ctx context.Context, c *client.Client) error {
	for range 3 + w.rand.IntN(12) {
		sleep(ctx, time.Duration(w.rand.Int64N(int64(600*time.Millisecond))))
		call, cancel := context.WithTimeout(ctx, 2*time.Second)
		name := w.name()
		d, err := c.Detached().Acquire(call, name, maxHold/4)
		if err == nil {
			err = ignoreNotHeld(c.Detached().Release(call, name, d.Token))
		}
		cancel()
		w.expect(err)
	}
	return nil
}

// thieve tries to use what another identity holds without a session, by its token.
func (w *worker) thieve(ctx context.Context, c *client.Client) error {
	name := w.name()
	info, err := c.Get(ctx, name)
	if err != nil || len(info.Holders) == 0 {
		return err
	}
	h := info.Holders[0]
	if h.Holder == w.w.Name {
		return nil
	}
	if w.rand.IntN(2) == 0 {
		_, err = c.Detached().Renew(ctx, name, h.Token, maxHold/2)
	} else {
		err = c.Detached().Release(ctx, name, h.Token)
	}
	if err == nil {
		w.r.violate("S10", "%s has used the grant of %s with token %d", w.w.Name, h.Holder, h.Token)
	}
	return err
}

// judgeRights compares what was granted, and what was refused, with the rights that there were.
func (o *Outcome) judgeRights() {
	if o.Plan.Profile != "rights" {
		return
	}
	seen := map[uint64]bool{}
	for _, e := range o.History.Entries {
		if seen[e.Applied.Index] {
			continue
		}
		seen[e.Applied.Index] = true
		for i := range e.Applied.Events {
			if ev := &e.Applied.Events[i]; ev.Kind == fsm.EventGranted {
				o.judgeGranted(e.Applied.Index, ev.Holder)
			}
		}
	}
	for i := range o.History.Ops {
		if op := &o.History.Ops[i]; op.Kind == history.Acquire {
			o.judgeAcquire(op)
		}
	}
}

// judgeGranted: at its place in the log, or just before, the holder was somebody.
func (o *Outcome) judgeGranted(index uint64, holder string) {
	if !slices.ContainsFunc(o.rightsAt(index), func(c sim.RightsChange) bool { return isSomebody(&c, holder) }) {
		o.accuse("S11", "entry %d grants a lock to %s, of whose name there is no access token", index, holder)
	}
}

// isRevoked reports whether there was no access token of a holder's name at an index of the log,
// or just before.
func (o *Outcome) isRevoked(index uint64, holder string) bool {
	return slices.ContainsFunc(o.rightsAt(index), func(c sim.RightsChange) bool { return !isSomebody(&c, holder) })
}

// rightsAt are the rights before an entry and, if it changes them, those after it: where in the
// entry it does, its index does not tell.
func (o *Outcome) rightsAt(index uint64) []sim.RightsChange {
	n, changes := slices.BinarySearchFunc(o.Rights, index, func(c sim.RightsChange, index uint64) int { return cmp.Compare(c.Index, index) })
	if changes {
		return o.Rights[max(0, n-1) : n+1]
	}
	return o.Rights[max(0, n-1):n]
}

// judgeAcquire: while nothing is broken, who has had no right for a second gets nothing, and who
// has had it for as long is not denied.
func (o *Outcome) judgeAcquire(op *history.Op) {
	from := op.Call - rightsWithin
	if op.Return == history.Never || !o.isCalm(from, op.Return) {
		return
	}
	always, ever := true, false
	for i := range o.Rights {
		c := &o.Rights[i]
		if c.At > op.Return || i+1 < len(o.Rights) && o.Rights[i+1].At < from {
			continue // not in force at any time of it
		}
		may := mayLock(c, op)
		always, ever = always && may, ever || may
	}
	switch {
	case op.Outcome == history.OK && !ever:
		o.accuse("S11", "%s by %s from %v to %v is granted %v, to which it had no right since %v at the latest", op.Kind, op.Client, op.Call, op.Return, op.Wants, from)
	case op.Code == apiv1.CodeDenied && always:
		o.accuse("availability", "%s by %s from %v to %v is denied %v, to which it has a right since %v at the latest: %s", op.Kind, op.Client, op.Call, op.Return, op.Wants, from, op.Error)
	}
}

func (o *Outcome) accuse(promise, format string, args ...any) {
	o.Violations = append(o.Violations, history.Violation{Promise: promise, Check: "run", Text: fmt.Sprintf(format, args...)})
}

// isCalm says that nothing was broken in a span of time, nor shortly before.
func (o *Outcome) isCalm(from, to time.Duration) bool {
	return slices.ContainsFunc(o.calms, func(c [2]time.Duration) bool {
		return c[0]+recoveryBound(o.Plan) <= from && to <= c[1]
	})
}

func isSomebody(c *sim.RightsChange, name string) bool {
	return slices.ContainsFunc(c.Tokens, func(t fsm.AccessToken) bool { return t.Name == name })
}

// mayLock says that the client of an operation had the right to all of its locks. The policies of
// this profile have rules for everything or for one lock, which counts more.
func mayLock(c *sim.RightsChange, op *history.Op) bool {
	if !isSomebody(c, op.Client) {
		return false
	}
	for _, want := range op.Wants {
		may := false
		for _, p := range c.Policies {
			if !slices.Contains(p.For, "token:"+op.Client) {
				continue
			}
			for _, r := range p.Rules {
				if r.Rights&fsm.RightLock != 0 && !r.Deny {
					may = true
				}
			}
			for _, r := range p.Rules {
				if r.Rights&fsm.RightLock != 0 && r.Deny && r.Name == want.Lock {
					may = false
				}
			}
		}
		if !may {
			return false
		}
	}
	return true
}
