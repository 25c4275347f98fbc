package client

import (
	"context"
	"encoding/hex"
	"math"
	"time"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/internal/embedded"
)

// The calls of an operator that concern clients. The leader carries them out, whichever node
// is asked. They wait until the leader has answered, the [ConnectTimeout] is over without a
// node that knows one, or ctx ends. After ErrInvalid and ErrDenied nothing was changed; after
// any other error of a call that changes something it may have been done in part, and
// the call may be repeated; see [Client.Resize] for when that does harm.

// SessionInfo is an open session of any client.
type SessionInfo struct {
	Hash      string            // hexadecimal; stands for the session's ID, which is its client's secret
	Number    uint64            // grows in the order in which sessions are opened
	Owner     string            // the address it was opened from, of IPv6 the /64; or "node " and an ID
	Holder    string            // the client's name; see [Holder]
	TTL       time.Duration     // the cluster ends it after that time without a keep-alive
	Remaining time.Duration     // until it ends if no keep-alive comes
	Grants    int               // that it holds
	Waiters   int               // its places in queues
	Bytes     int64             // its part of [Status].TableBytes, without its grants
	Labels    map[string]string // the client's; see [Labels]
}

// SessionsFilter selects sessions. The zero value selects the first 100.
type SessionsFilter struct {
	Owner string // opened by this owner; empty: by any
	Lock  string // that hold it or wait for it; empty: any
	After uint64 // with a greater number than this one
	Limit int    // how many at most, up to 1000; 0: 100
}

// Sessions lists open sessions in the order in which they were opened. If there are more,
// next is not 0: pass it as After. The errors are ErrInvalid, ErrDenied, ErrUnavailable,
// ErrClosed and the end of ctx.
func (c *Client) Sessions(ctx context.Context, filter SessionsFilter) (sessions []SessionInfo, next uint64, err error) {
	w := what{verb: "list sessions"}
	if err := checkText(w, "lock", filter.Lock, false); err != nil {
		return nil, 0, err
	}
	if err := checkText(w, "owner", filter.Owner, false); err != nil {
		return nil, 0, err
	}
	if filter.Limit < 0 || filter.Limit > 1000 {
		return nil, 0, invalid(w, "limit: is %d, must be 0 to 1000", filter.Limit)
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

// KillSession ends the session of any client, by its hash: its grants end, and its places
// in queues are given up. Its client gets a [LostError] with the address of the caller, which
// the node adds, and the reason; where it is cut off, it only learns that the session has
// ended. KillSession returns [ErrSession] if no such session is open, and otherwise the
// errors of [Client.Sessions].
func (c *Client) KillSession(ctx context.Context, hash, reason string) error {
	w := what{"kill session", hash}
	h, err := hex.DecodeString(hash)
	if err != nil || len(h) != len(apiv1.SessionHash([]byte{0})) {
		return invalid(w, "hash: is %.64q, must be the %d hexadecimal digits that Sessions returns", hash, 2*len(apiv1.SessionHash([]byte{0})))
	}
	_, err = c.kill(ctx, w, &apiv1.KillSessionsRequest{Hash: h, Reason: reason})
	return err
}

// Killed is how much [Client.KillSessionsOf] has ended.
type Killed struct {
	Sessions int // with their grants and places in queues
	Grants   int // that belonged to no session
	Waiters  int // that belonged to no session
}

// KillSessionsOf is [Client.KillSession] for all that an owner has when the call begins: its
// sessions, and the grants and waiters of its requests without a session, over HTTP for
// example. It is no error if there is nothing to end.
func (c *Client) KillSessionsOf(ctx context.Context, owner, reason string) (Killed, error) {
	w := what{"kill sessions of", owner}
	if err := checkText(w, "owner", owner, true); err != nil {
		return Killed{}, err
	}
	return c.kill(ctx, w, &apiv1.KillSessionsRequest{Owner: owner, Reason: reason})
}

// kill sends the request of a KillSession or KillSessionsOf.
func (c *Client) kill(ctx context.Context, w what, q *apiv1.KillSessionsRequest) (Killed, error) {
	if err := checkText(w, "reason", q.GetReason(), false); err != nil {
		return Killed{}, err
	}
	r, err := administer(ctx, c, w, func(a embedded.Operator, ctx context.Context) (*apiv1.KillSessionsResponse, error) {
		return a.KillSessions(ctx, q)
	})
	return Killed{int(r.GetKilled()), int(r.GetGrants()), int(r.GetWaiters())}, err
}

// Clear ends all grants on a lock and all waits for it that there are when the call begins,
// and returns how many of each. Holders get a [LostError]; no waiter is granted the lock
// in between. It returns [ErrNotHeld] if there are none, and otherwise the errors of
// [Client.Sessions].
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

// Resize changes the size of a semaphore, for as long as it has a holder or a waiter; after
// that, the next acquire sets its size. If there are more permits, waiters are granted them at
// once. If there are fewer, holders keep theirs, and nobody is granted permits until enough of
// them are released; a wait for more permits than the new size ends with [ErrKind]. So does an
// acquire that names another size than the new one.
//
// It waits until the cluster has done it or ctx ends. It returns [ErrNotHeld] if the semaphore
// has neither holder nor waiter, [ErrKind] if the lock is no semaphore, and [ErrInvalid] unless
// size is 1 to 4,294,967,295; nothing was changed then. If ctx ends first, or after
// [ErrSession], it may have been done. The call may then be repeated, unless somebody else
// may have resized the semaphore in the meantime: their size would be replaced.
func (c *Client) Resize(ctx context.Context, name string, size int) error {
	w := what{"resize", name}
	if err := checkText(w, "name", name, true); err != nil {
		return err
	}
	if size < 1 || int64(size) > math.MaxUint32 {
		return invalid(w, "size: is %d, must be 1 to %d", size, uint32(math.MaxUint32))
	}
	_, err := c.command(ctx, w, false, func(id *apiv1.RequestID) *apiv1.Operation {
		return &apiv1.Operation{Request: &apiv1.Operation_Resize{Resize: &apiv1.ResizeRequest{Id: id, Name: name, Limit: uint32(size)}}}
	})
	return err
}

// LimitInfo is one limit of the lock table.
type LimitInfo struct {
	Name     string // as in the settings, without "limits."
	Value    int64  // a count, or bytes; nanoseconds if Duration is set
	Default  int64  // the value unless another one is set
	Largest  int64  // the greatest value that may be set
	Duration bool   // Value, Default and Largest are nanoseconds
}

// Limits returns the limits of the lock table, which are the same on all nodes. The errors
// are those of [Client.Sessions].
func (c *Client) Limits(ctx context.Context) ([]LimitInfo, error) {
	r, err := administer(ctx, c, what{verb: "get limits"}, func(a embedded.Operator, ctx context.Context) (*apiv1.GetLimitsResponse, error) {
		return a.GetLimits(ctx, &apiv1.GetLimitsRequest{})
	})
	return limitInfos(r.GetLimits()), err
}

// SetLimits changes limits of the lock table by their names, at once, for all nodes and
// permanently; 0 sets the default. What exists stays: a client that has more than a new
// limit allows gets no more. It returns the named limits before and after the change.
// [ErrInvalid] names a limit that does not exist or a value that is out of range; other
// errors are those of [Client.Sessions].
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
