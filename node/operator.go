package node

import (
	"bytes"
	"context"
	"fmt"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/fsm"
	"github.com/locknode/locknode/internal/fair"
)

// What an operator does about clients that take too much: look at the sessions, end them,
// end all waits for a lock, change the limits. The leader does it; other nodes pass it on.

const (
	defaultSessions = 100
	maxSessions     = 1000
	// killsAtOnce and endsAtOnce bound what is killed in one entry: sessions, and the
	// grants and waits that end with them.
	killsAtOnce = 256
	endsAtOnce  = 4096
)

// ListSessions lists open sessions, as the leader has applied them.
func (n wire) ListSessions(ctx context.Context, req *apiv1.ListSessionsRequest) (*apiv1.ListSessionsResponse, error) {
	limit := int(req.GetLimit())
	if limit == 0 {
		limit = defaultSessions
	}
	if limit > maxSessions {
		return nil, apiv1.NewError(apiv1.CodeInvalid, "limit: is %d, must be 1 to %d", limit, maxSessions)
	}
	return atLeader(ctx, n.Node, func(*epoch) (*apiv1.ListSessionsResponse, error) {
		filter := fsm.SessionFilter{Lock: req.GetLock()}
		if owner := req.GetOwner(); owner != "" {
			filter.Owner = &owner
		}
		res := &apiv1.ListSessionsResponse{}
		intact := n.machine.View(func(t *fsm.Table) {
			sessions, more := t.Sessions(filter, req.GetAfter(), limit)
			for i := range sessions {
				res.Sessions = append(res.Sessions, sessionInfo(&sessions[i], t.Now()))
			}
			if more {
				res.Next = sessions[len(sessions)-1].Number
			}
		})
		if !intact {
			return nil, n.unavailable()
		}
		return res, nil
	}, func(c apiv1.LocksClient) (*apiv1.ListSessionsResponse, error) { return c.ListSessions(ctx, req) })
}

func sessionInfo(s *fsm.SessionSummary, now fsm.Instant) *apiv1.SessionInfo {
	info := &apiv1.SessionInfo{
		Hash: apiv1.SessionHash(s.Session[:]), Number: s.Number, Owner: s.Owner, Holder: s.Holder, TtlNs: s.TTL,
		RemainingNs: s.Deadline.Until(now), Grants: uint64(s.Grants), Waiters: uint64(s.Waiters), TableBytes: s.Bytes,
	}
	for _, l := range s.Labels {
		info.Labels = append(info.Labels, &apiv1.Label{Key: l.Key, Value: l.Value})
	}
	return info
}

// KillSessions ends one session, or all of an owner that were open when it began. After an
// error some may have been ended; to ask again does no harm.
func (n wire) KillSessions(ctx context.Context, req *apiv1.KillSessionsRequest) (*apiv1.KillSessionsResponse, error) {
	if (len(req.GetHash()) == 0) == (req.GetOwner() == "") {
		return nil, apiv1.NewError(apiv1.CodeInvalid, "hash, owner: must be one of them, which names a session or all of an owner")
	}
	req.Who = n.whoAsks(req.GetWho())
	return atLeader(ctx, n.Node, func(e *epoch) (*apiv1.KillSessionsResponse, error) {
		killed, index, err := n.killSessions(ctx, e, req)
		if err != nil {
			return nil, err
		}
		res := &apiv1.KillSessionsResponse{Killed: killed, Index: index}
		if owner := req.GetOwner(); owner != "" {
			c := fsm.Clear{Owner: owner, Reason: req.GetReason(), Who: req.GetWho()}
			if res.Grants, res.Waiters, index, err = n.clearAll(ctx, e, c); err != nil {
				return nil, err
			}
			res.Index = max(res.GetIndex(), index)
		}
		n.log.Info("sessions ended by an operator", "sessions", killed, "grants", res.GetGrants(), "waiters", res.GetWaiters(), "hash", fmt.Sprintf("%x", req.GetHash()), "owner", req.GetOwner(), "who", req.GetWho(), "reason", req.GetReason())
		return res, nil
	}, func(c apiv1.LocksClient) (*apiv1.KillSessionsResponse, error) { return c.KillSessions(ctx, req) })
}

func (n *Node) killSessions(ctx context.Context, e *epoch, req *apiv1.KillSessionsRequest) (killed, index uint64, err error) {
	if hash := req.GetHash(); len(hash) > 0 {
		var id fsm.SessionID
		var found bool
		n.machine.View(func(t *fsm.Table) {
			id, found = t.FindSession(func(id fsm.SessionID) bool { return bytes.Equal(apiv1.SessionHash(id[:]), hash) })
		})
		if !found {
			return 0, 0, apiv1.NewError(apiv1.CodeNoSession, "session %x: is not open; \"locknode sessions ls\" lists those that are", hash)
		}
		return n.killAll(ctx, e, []fsm.SessionSummary{{Session: id}}, req)
	}
	owner := req.GetOwner()
	var last uint64
	for {
		var sessions []fsm.SessionSummary
		n.machine.View(func(t *fsm.Table) {
			sessions, _ = t.Sessions(fsm.SessionFilter{Owner: &owner}, last, maxSessions)
		})
		if len(sessions) == 0 {
			return killed, index, nil
		}
		some, at, err := n.killAll(ctx, e, sessions, req)
		if killed += some; err != nil {
			return killed, index, err
		}
		index = max(index, at)
		last = sessions[len(sessions)-1].Number
	}
}

// killAll kills sessions, some at a time. index is that of the last entry.
func (n *Node) killAll(ctx context.Context, e *epoch, sessions []fsm.SessionSummary, req *apiv1.KillSessionsRequest) (killed, index uint64, err error) {
	for len(sessions) > 0 {
		var commands []fsm.Command
		ends := 0
		for len(sessions) > 0 && len(commands) < killsAtOnce && (len(commands) == 0 || ends < endsAtOnce) {
			s := &sessions[0]
			ends += s.Grants + s.Waiters
			commands = append(commands, fsm.KillSession{Session: s.Session, Reason: req.GetReason(), Who: req.GetWho()})
			sessions = sessions[1:]
		}
		outcomes, err := n.runAll(ctx, e, commands...)
		if err != nil {
			return killed, index, err
		}
		for i := range outcomes {
			index = max(index, outcomes[i].index)
			switch res := &outcomes[i].result; res.Code {
			case fsm.OK:
				killed++
			case fsm.NoSession: // it ended by itself
			default:
				return killed, index, refusal(&apiv1.Operation{}, res, outcomes[i].now)
			}
		}
	}
	return killed, index, nil
}

// ClearLock ends all who hold a lock or wait for it when it begins. After an error some may
// have been ended; to ask again does no harm.
func (n wire) ClearLock(ctx context.Context, req *apiv1.ClearLockRequest) (*apiv1.ClearLockResponse, error) {
	req.Who = n.whoAsks(req.GetWho())
	return atLeader(ctx, n.Node, func(e *epoch) (*apiv1.ClearLockResponse, error) {
		grants, waiters, index, err := n.clearAll(ctx, e, fsm.Clear{Lock: req.GetName(), Reason: req.GetReason(), Who: req.GetWho()})
		if err != nil {
			return nil, err
		}
		res := &apiv1.ClearLockResponse{Grants: grants, Waiters: waiters, Index: index}
		n.log.Info("lock cleared by an operator", "lock", req.GetName(), "grants", res.Grants, "waiters", res.Waiters, "who", req.GetWho(), "reason", req.GetReason())
		return res, nil
	}, func(c apiv1.LocksClient) (*apiv1.ClearLockResponse, error) { return c.ClearLock(ctx, req) })
}

// clearAll clears in as many entries as it takes. index is that of the last one.
func (n *Node) clearAll(ctx context.Context, e *epoch, c fsm.Clear) (grants, waiters, index uint64, err error) {
	for more := true; more; {
		outcomes, err := n.runAll(ctx, e, c)
		if err != nil {
			return grants, waiters, index, err
		}
		index = max(index, outcomes[0].index)
		switch got := &outcomes[0].result; {
		case got.Code == fsm.NotHeld && c.UpTo == 0:
			return 0, 0, 0, apiv1.NewError(apiv1.CodeNotHeld, "lock %q: nobody holds it or waits for it", c.Lock)
		case got.Code == fsm.NotHeld:
			more = false
		case got.Code != fsm.OK:
			return grants, waiters, index, refusal(&apiv1.Operation{}, got, outcomes[0].now)
		default:
			grants += uint64(got.Cleared.Grants)
			waiters += uint64(got.Cleared.Waiters)
			c.UpTo, c.After, more = got.Cleared.UpTo, got.Cleared.After, got.Cleared.More
		}
	}
	return grants, waiters, index, nil
}

// GetLimits returns the limits of the table, as the leader has applied them.
func (n wire) GetLimits(ctx context.Context, req *apiv1.GetLimitsRequest) (*apiv1.GetLimitsResponse, error) {
	return atLeader(ctx, n.Node, func(*epoch) (*apiv1.GetLimitsResponse, error) {
		limits, ok := n.limits()
		if !ok {
			return nil, n.unavailable()
		}
		return &apiv1.GetLimitsResponse{Limits: limitMessages(limits)}, nil
	}, func(c apiv1.LocksClient) (*apiv1.GetLimitsResponse, error) { return c.GetLimits(ctx, req) })
}

func (n *Node) limits() (limits fsm.Limits, ok bool) {
	ok = n.machine.View(func(t *fsm.Table) { limits = t.Limits() })
	return limits, ok
}

// SetLimits changes the limits that are named.
func (n wire) SetLimits(ctx context.Context, req *apiv1.SetLimitsRequest) (*apiv1.SetLimitsResponse, error) {
	if len(req.GetLimits()) == 0 {
		return nil, apiv1.NewError(apiv1.CodeInvalid, "limits: are none, must be at least one")
	}
	req.Who = n.whoAsks(req.GetWho())
	return atLeader(ctx, n.Node, func(e *epoch) (*apiv1.SetLimitsResponse, error) {
		n.limiting.Lock() // what another caller changes at the same time stays changed
		defer n.limiting.Unlock()
		before, ok := n.limits()
		if !ok {
			return nil, n.unavailable()
		}
		after := before
		for _, l := range req.GetLimits() {
			value := l.GetValue()
			if value == 0 && l.GetName() == tableBytes {
				value = n.tableBytes()
			}
			if !after.Set(l.GetName(), value) {
				return nil, apiv1.NewError(apiv1.CodeInvalid, "limits: there is no limit %.100q; \"locknode limits get\" lists them", l.GetName())
			}
		}
		if err := after.Validate(); err != nil {
			return nil, apiv1.NewError(apiv1.CodeInvalid, "%v", err)
		}
		after = after.WithDefaults()
		outcomes, err := n.runAll(ctx, e, fsm.Configure{Limits: after})
		if err != nil {
			return nil, err
		}
		if res := &outcomes[0].result; res.Code != fsm.OK {
			return nil, refusal(&apiv1.Operation{}, res, outcomes[0].now)
		}
		res := &apiv1.SetLimitsResponse{Before: named(limitMessages(before), req), After: named(limitMessages(after), req), Index: outcomes[0].index}
		for i, l := range res.GetAfter() {
			n.log.Info("limit changed by an operator", "limit", l.GetName(), "from", res.GetBefore()[i].GetValue(), "to", l.GetValue(), "who", req.GetWho())
		}
		return res, nil
	}, func(c apiv1.LocksClient) (*apiv1.SetLimitsResponse, error) { return c.SetLimits(ctx, req) })
}

func limitMessages(limits fsm.Limits) []*apiv1.Limit {
	var all []*apiv1.Limit
	for _, l := range limits.All() {
		all = append(all, &apiv1.Limit{Name: l.Name, Value: l.Value, Default: l.Default, Largest: l.Largest, Duration: l.Duration})
	}
	return all
}

// named are those of the limits that a request names.
func named(all []*apiv1.Limit, req *apiv1.SetLimitsRequest) (some []*apiv1.Limit) {
	for _, l := range all {
		for _, asked := range req.GetLimits() {
			if asked.GetName() == l.GetName() {
				some = append(some, l)
				break
			}
		}
	}
	return some
}

// whoAsks returns who made a request: the server has filled that in for what came over a
// connection. Any other request is of the program that this node runs in.
func (n *Node) whoAsks(said string) string {
	if said == "" {
		return "node " + n.id
	}
	return said
}

// operators is the owner of what operators do: they take turns with floods of clients.
var operators = fair.Owner{Address: fair.AddressOf("operators")}

// runAll puts commands through the log, and waits until they are applied or ctx ends.
func (n *Node) runAll(ctx context.Context, e *epoch, commands ...fsm.Command) ([]outcome, error) {
	type numbered struct {
		i int
		outcome
	}
	done := make(chan numbered, len(commands))
	for i, c := range commands {
		e.proposer.submit(operators, c, func(o outcome) { done <- numbered{i, o} })
	}
	outcomes := make([]outcome, len(commands))
	for range commands {
		select {
		case o := <-done:
			if o.err != nil {
				return nil, apiv1.NewError(apiv1.CodeUnavailable, "node %q: leadership was lost, or it has too much to do (%v); some of it may have been done", n.id, o.err)
			}
			outcomes[o.i] = o.outcome
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	return outcomes, nil
}

// atLeader does something here, if this node leads, or has the leader do it. It looks for
// one as long as an operation would.
func atLeader[R any](ctx context.Context, n *Node, here func(*epoch) (R, error), there func(apiv1.LocksClient) (R, error)) (R, error) {
	var res R
	if n.raft.Load() == nil {
		return res, n.unavailable()
	}
	err := n.throughElections(ctx, func() (err error) {
		if e := n.epoch.Load(); e != nil {
			res, err = here(e)
			return err
		}
		peer, err := n.leaderLocks()
		if err != nil {
			return err
		}
		res, err = there(peer)
		return err
	})
	return res, err
}
