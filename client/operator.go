package client

import (
	"context"
	"encoding/hex"
	"time"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/internal/embedded"
)

// What an operator does about clients. All of it is done by the leader, whichever node is
// asked; with an error it may have been done in part, and to ask again does no harm.

// SessionInfo is an open session, of any client.
type SessionInfo struct {
	Hash      string            // hexadecimal; it stands for the session's ID, which is its client's secret
	Number    uint64            // sessions are numbered as they come
	Owner     string            // the address it was opened from, of IPv6 the /64; or "node " and an ID
	Holder    string            // who its client says it is
	TTL       time.Duration     // after which without a word the cluster ends it
	Remaining time.Duration     // until it ends unless its client is heard of
	Grants    int               // that it holds
	Waiters   int               // its places in line
	Bytes     int64             // of [Status].TableBytes, without its grants
	Labels    map[string]string // the client's; see [Labels]
}

// SessionsFilter says which sessions are meant. The zero value means all.
type SessionsFilter struct {
	Owner string // opened from there; empty: from anywhere
	Lock  string // that hold it or wait for it; empty: any
	After uint64 // opened after the one with this number
	Limit int    // at most so many, up to 1000; 0: 100
}

// Sessions lists open sessions in the order in which they were opened. next is not 0 where
// there are more: pass it as After.
func (c *Client) Sessions(ctx context.Context, filter SessionsFilter) (sessions []SessionInfo, next uint64, err error) {
	w := what{verb: "list sessions"}
	if err := checkText(w, "lock", filter.Lock, false); err != nil {
		return nil, 0, err
	}
	if err := checkText(w, "owner", filter.Owner, false); err != nil {
		return nil, 0, err
	}
	if filter.Limit < 0 || filter.Limit > 1000 {
		return nil, 0, invalid(w, "limit %d: 0 to 1000 is allowed", filter.Limit)
	}
	r, err := administer(ctx, c, w, func(a embedded.Operator, ctx context.Context) (*apiv1.ListSessionsResponse, error) {
		return a.ListSessions(ctx, &apiv1.ListSessionsRequest{
			Owner: filter.Owner, Lock: filter.Lock, After: filter.After, Limit: uint32(filter.Limit),
		})
	})
	for _, s := range r.GetSessions() {
		info := SessionInfo{
			Hash: hex.EncodeToString(s.GetHash()), Number: s.GetNumber(), Owner: s.GetOwner(), Holder: s.GetHolder(),
			TTL: time.Duration(s.GetTtlNs()), Remaining: time.Duration(s.GetRemainingNs()),
			Grants: int(s.GetGrants()), Waiters: int(s.GetWaiters()), Bytes: s.GetTableBytes(),
		}
		for _, l := range s.GetLabels() {
			if info.Labels == nil {
				info.Labels = make(map[string]string)
			}
			info.Labels[l.GetKey()] = l.GetValue()
		}
		sessions = append(sessions, info)
	}
	return sessions, r.GetNext(), err
}

// KillSession ends one session against its client's will, by its hash: all that it holds
// is free for the next, and what it waits for is given up. Its client is told who did it,
// which the node says, and the reason. It returns [ErrSession] if no such session is open.
func (c *Client) KillSession(ctx context.Context, hash, reason string) error {
	w := what{"kill session", hash}
	h, err := hex.DecodeString(hash)
	if err != nil || len(h) != len(apiv1.SessionHash([]byte{0})) {
		return invalid(w, "%d hexadecimal digits are needed, as Sessions shows them", 2*len(apiv1.SessionHash([]byte{0})))
	}
	_, err = c.kill(ctx, w, &apiv1.KillSessionsRequest{Hash: h, Reason: reason})
	return err
}

// Killed is what was ended.
type Killed struct {
	Sessions int // with all that they had
	Grants   int // of no session
	Waiters  int // of no session
}

// KillSessionsOf is [Client.KillSession] for all that an owner has when it begins: its
// sessions, and what came from there without one, over HTTP, say. Nothing is no error.
func (c *Client) KillSessionsOf(ctx context.Context, owner, reason string) (Killed, error) {
	w := what{"kill sessions of", owner}
	if err := checkText(w, "owner", owner, true); err != nil {
		return Killed{}, err
	}
	return c.kill(ctx, w, &apiv1.KillSessionsRequest{Owner: owner, Reason: reason})
}

func (c *Client) kill(ctx context.Context, w what, q *apiv1.KillSessionsRequest) (Killed, error) {
	if err := checkText(w, "reason", q.GetReason(), false); err != nil {
		return Killed{}, err
	}
	r, err := administer(ctx, c, w, func(a embedded.Operator, ctx context.Context) (*apiv1.KillSessionsResponse, error) {
		return a.KillSessions(ctx, q)
	})
	return Killed{int(r.GetKilled()), int(r.GetGrants()), int(r.GetWaiters())}, err
}

// Clear ends all grants on a lock and all requests that wait for it when it begins, against
// the will of their clients, who are told as with [Client.KillSession]. Nobody in the line
// is granted the lock in between. It returns [ErrNotHeld] if there are none.
func (c *Client) Clear(ctx context.Context, name, reason string) (grants, waiters int, err error) {
	w := what{"clear", name}
	if err := checkText(w, "name", name, true); err != nil {
		return 0, 0, err
	}
	if err := checkText(w, "reason", reason, false); err != nil {
		return 0, 0, err
	}
	r, err := administer(ctx, c, w, func(a embedded.Operator, ctx context.Context) (*apiv1.ClearLockResponse, error) {
		return a.ClearLock(ctx, &apiv1.ClearLockRequest{Name: name, Reason: reason})
	})
	return int(r.GetGrants()), int(r.GetWaiters()), err
}

// LimitInfo is one limit of the lock table.
type LimitInfo struct {
	Name     string // as in the settings, without "limits."
	Value    int64  // a number, or bytes; nanoseconds if Duration is set
	Default  int64  // which it has unless it is set
	Largest  int64  // that is allowed
	Duration bool   // the numbers are nanoseconds
}

// Limits returns the limits of the lock table, which are the same on all nodes.
func (c *Client) Limits(ctx context.Context) ([]LimitInfo, error) {
	r, err := administer(ctx, c, what{verb: "get limits"}, func(a embedded.Operator, ctx context.Context) (*apiv1.GetLimitsResponse, error) {
		return a.GetLimits(ctx, &apiv1.GetLimitsRequest{})
	})
	return limitInfos(r.GetLimits()), err
}

// SetLimits changes limits of the lock table by their names, at once, for all nodes and for
// good; 0 means the default. Nothing that exists is taken away: who has more than a new
// limit allows gets no more. It returns the limits that were named, as they were and as they
// are, or [ErrInvalid], and then nothing is changed.
func (c *Client) SetLimits(ctx context.Context, values map[string]int64) (before, after []LimitInfo, err error) {
	q := &apiv1.SetLimitsRequest{}
	for name, value := range values {
		q.Limits = append(q.Limits, &apiv1.Limit{Name: name, Value: value})
	}
	r, err := administer(ctx, c, what{verb: "set limits"}, func(a embedded.Operator, ctx context.Context) (*apiv1.SetLimitsResponse, error) {
		return a.SetLimits(ctx, q)
	})
	return limitInfos(r.GetBefore()), limitInfos(r.GetAfter()), err
}

func limitInfos(in []*apiv1.Limit) []LimitInfo {
	var out []LimitInfo
	for _, l := range in {
		out = append(out, LimitInfo{
			Name: l.GetName(), Value: l.GetValue(), Default: l.GetDefault(), Largest: l.GetLargest(), Duration: l.GetDuration(),
		})
	}
	return out
}
