package node

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/fsm"
	"github.com/locknode/locknode/internal/fair"
	"github.com/locknode/locknode/internal/replica"
	"github.com/locknode/locknode/internal/rights"
	"github.com/locknode/locknode/internal/server"
)

// Who may do what? The access tokens and policies are in the table of every node. Each node
// compiles them when they have changed, and decides by them about the requests that it receives
// (internal/server/permit.go). What it passes on to the leader says whose it is, and the leader
// has the table check that (fsm.As).

// authModes and authOpens are the values of [Auth.Mode] and [Auth.Open].
var (
	authModes = []string{"off", "log", "required"}
	authOpens = []string{"metrics", "status", "members", "reflection"}
)

// mode returns the mode, also where it is left out.
func (a *Auth) mode() string { return cmp.Or(a.Mode, "off") }

// check reports every fault of the settings of rights.
func (a *Auth) check(bad func(format string, args ...any)) {
	if a.Mode != "" && !slices.Contains(authModes, a.Mode) {
		bad("auth mode: is %q, must be off, log or required", a.Mode)
	}
	for _, open := range a.Open {
		if !slices.Contains(authOpens, open) {
			bad("auth open: is %q, must be metrics, status, members or reflection", open)
		}
	}
}

const (
	// deafAfter is how long a node goes on to decide about the right admin without having
	// heard from the leader. It is in the documents.
	deafAfter = 5 * time.Second
	// raisePatience is how long a node whose table has no rights yet, because of its feature
	// level, waits for the leader to raise it before it answers without rights. A new cluster
	// gets there at once, unless a member is too old.
	raisePatience = 5 * time.Second
	// proofFile has the proof that BootstrapAccessToken takes: whoever can read it can read
	// everything of the node.
	proofFile = "operator.key"
)

// rightsLevel is the feature level of the table from which on it has rights.
var rightsLevel = fsm.LevelOf(fsm.As{})

// rightsHere is what a node knows of rights. Its goroutine is run.
type rightsHere struct {
	n     *Node
	book  atomic.Pointer[rights.Book] // never nil
	known atomic.Bool                 // the book is what the table was when it had caught up, or later
	since atomic.Int64                // monotonic time when known was set
	index atomic.Uint64               // of the last change in the table
	woken chan struct{}               // holds a token when the table may have changed
	proof string                      // what is in proofFile

	mu      sync.Mutex    // guards what follows
	changed chan struct{} // closed when there is another book
}

func newRightsHere(n *Node) *rightsHere {
	var random [32]byte
	_, _ = rand.Read(random[:]) // never fails
	r := &rightsHere{n: n, woken: make(chan struct{}, 1), changed: make(chan struct{}), proof: hex.EncodeToString(random[:])}
	r.book.Store(rights.NewBook(0, nil, nil))
	return r
}

// writeProof writes the proof into the data directory, for the operator of this node.
func (r *rightsHere) writeProof(dir string) error {
	if dir == "" || r.n.cfg.seams.Memory != nil {
		return nil
	}
	path := filepath.Join(dir, proofFile)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) { // it may have other permissions
		return fmt.Errorf("write %s: %w", path, err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	_, err = f.WriteString(r.proof + "\n")
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// isProof reports whether only who can read proofFile can have sent a text.
func (r *rightsHere) isProof(text string) bool {
	return subtle.ConstantTimeCompare([]byte(text), []byte(r.proof)) == 1
}

// noticed is called after each entry, on the goroutine that applies.
func (r *rightsHere) noticed(index uint64) {
	if r.index.Swap(index) == index {
		return
	}
	select {
	case r.woken <- struct{}{}:
	default:
	}
}

// run compiles the access tokens and policies when they have changed. Those of an entry are in
// force here some milliseconds after it was applied.
func (r *rightsHere) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.woken:
		}
		var book *rights.Book
		r.n.machine.View(func(t *fsm.Table) {
			if t.RightsIndex() != r.book.Load().Index() {
				tokens, policies, index := t.AccessTokens("", math.MaxInt), t.Policies(), t.RightsIndex()
				book = rights.NewBook(index, tokens, policies)
			}
		})
		if book == nil {
			continue
		}
		r.mu.Lock()
		r.book.Store(book)
		close(r.changed)
		r.changed = make(chan struct{})
		r.mu.Unlock()
		r.n.server.RightsChanged()
	}
}

// reach waits until the change in the entry at index is in force here, or ctx ends, or that takes
// too long: then the caller is told of a change that this node comes to know a little later.
func (r *rightsHere) reach(ctx context.Context, index uint64) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	for {
		r.mu.Lock()
		changed := r.changed
		r.mu.Unlock()
		if r.book.Load().Index() >= index {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// refresh implements [server.Auth.Refresh]. It costs a place in the next read round.
func (r *rightsHere) refresh(ctx context.Context, o fair.Owner) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	caughtUp := make(chan bool, 1)
	taken := r.n.rounds.joinFor(o, 1, func(index uint64, err error) {
		if err != nil {
			caughtUp <- false
			return
		}
		r.n.reads.reach(index, func(reached bool) { caughtUp <- reached })
	})
	if !taken {
		return
	}
	select {
	case ok := <-caughtUp:
		if ok {
			r.reach(ctx, r.n.state.Load().rights)
		}
	case <-ctx.Done():
	}
}

// isKnown reports whether the book is not older than what was true when the node started.
func (r *rightsHere) isKnown() bool {
	if r.known.Load() {
		return true
	}
	if _, ok := r.n.rounds.age(); !ok || r.book.Load().Index() != r.n.state.Load().rights {
		return false
	}
	r.since.Store(int64(r.n.cfg.seams.Mono()))
	r.known.Store(true)
	return true
}

// hasLevel reports whether the table has rights.
func (r *rightsHere) hasLevel() bool { return r.n.tableLevel().level >= rightsLevel }

// enforced implements [server.Auth.Enforced].
func (r *rightsHere) enforced() bool {
	return r.hasLevel() || !r.isKnown() || r.n.cfg.seams.Mono()-time.Duration(r.since.Load()) < raisePatience
}

// current implements [server.Auth.Book].
func (r *rightsHere) current() *rights.Book {
	if !r.isKnown() || !r.hasLevel() {
		return nil
	}
	return r.book.Load()
}

// describe returns whether this node refuses what callers have no right to, and why not although
// it should.
func (r *rightsHere) describe() (enforced bool, note string) {
	switch {
	case r.n.cfg.Auth.mode() != "required":
		return false, ""
	case r.enforced():
		return true, ""
	}
	return false, fmt.Sprintf("the lock table is at feature level %d and has rights from level %d on: a member does not know or not agree to it (\"locknode members\"), and until then everybody may do everything",
		r.n.tableLevel().level, rightsLevel)
}

// deaf implements [server.Auth.Deaf].
func (r *rightsHere) deaf() error {
	n := r.n
	if n.epoch.Load() != nil {
		return nil
	}
	raft := n.raft.Load()
	if raft == nil {
		return errors.New("the node belongs to no cluster yet")
	}
	heard := time.Since(raft.LastContact())
	if age, ok := n.rounds.age(); ok {
		heard = min(heard, age)
	}
	if heard > deafAfter {
		return fmt.Errorf("node %q has not heard from the leader for more than %v, and somebody may have lost the right meanwhile", n.id, deafAfter)
	}
	return nil
}

// ownerOfUsed implements [server.Auth.Owner].
func (n *Node) ownerOfUsed(op *apiv1.Operation) (owner string) {
	id := op.RequestID().GetSession()
	switch {
	case op.GetOpenSession() != nil:
		id = op.GetOpenSession().GetSession()
	case op.GetKeepAlive() != nil:
		id = op.GetKeepAlive().GetSession()
	case op.GetEndSession() != nil:
		id = op.GetEndSession().GetSession()
	}
	if len(id) == len(fsm.SessionID{}) {
		n.machine.TryView(func(t *fsm.Table) { owner, _ = t.SessionOwner(fsm.SessionID(id)) })
	}
	if _, token, ok := op.Grant(); ok && owner == "" {
		n.machine.TryView(func(t *fsm.Table) { owner, _ = t.GrantOwner(token) })
	}
	return owner
}

// ownerOfGrant implements [server.Auth.GrantOwner].
func (n *Node) ownerOfGrant(token uint64) (owner string) {
	n.machine.View(func(t *fsm.Table) { owner, _ = t.GrantOwner(token) })
	return owner
}

// serverAuth is what the server has to know.
func (n *Node) serverAuth() server.Auth {
	a := server.Auth{
		Mode: server.AuthMode(n.cfg.Auth.mode()), Open: n.cfg.Auth.Open, Insecure: n.cfg.Insecure,
		Book: n.rights.current, Enforced: n.rights.enforced, Refresh: n.rights.refresh, Deaf: n.rights.deaf, Owner: n.ownerOfUsed,
		GrantOwner: n.ownerOfGrant,
	}
	if f := n.cfg.Auth.Authorizer; f != nil {
		a.Authorizer = func(ctx context.Context, access server.Access) error { return f(ctx, Access(access)) }
	}
	return a
}

// asCaller has the table check whose session and grants a command uses, if the node that received
// it has checked who the caller is.
func (n *Node) asCaller(op *apiv1.Operation, c fsm.Command) fsm.Command {
	if !op.GetChecked() || n.tableLevel().level < rightsLevel {
		return c
	}
	return fsm.As{Caller: ownerOf(n.id, op), Force: op.GetForce(), Command: c}
}

// plain returns the command that is run for a caller.
func plain(c fsm.Command) fsm.Command {
	if as, ok := c.(fsm.As); ok {
		return as.Command
	}
	return c
}

// foreignIn returns a function that reports which keep-alives are of sessions that belong to
// another identity than their caller; nil: none is. Keep-alives are many, so they are no commands,
// each with its caller, that the table could check.
func foreignIn(table *replica.Table) func([]keepAlive) []bool {
	return func(all []keepAlive) (foreign []bool) {
		if !slices.ContainsFunc(all, func(k keepAlive) bool { return k.caller != "" }) {
			return nil
		}
		table.View(func(t *fsm.Table) {
			for i, k := range all {
				if k.caller == "" {
					continue
				}
				owner, ok := t.SessionOwner(k.session.Session)
				if !ok || owner == k.caller || !rights.Identity(owner).Owns() {
					continue
				}
				if foreign == nil {
					foreign = make([]bool, len(all))
				}
				foreign[i] = true
			}
		})
		return foreign
	}
}

func foreignSession() *apiv1.Error {
	return apiv1.NewError(apiv1.CodeDenied, "session: belongs to another identity")
}
