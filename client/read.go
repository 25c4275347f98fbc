package client

import (
	"context"
	"encoding/hex"
	"time"

	apiv1 "github.com/locknode/locknode/api/v1"
)

// LockInfo is the state of a lock.
type LockInfo struct {
	Name        string        // of the lock
	Holders     []HolderInfo  // the first 64; none: it is free
	HolderCount int           // of all holders; 0: it is free
	Waiters     int           // places in queues
	Limit       int           // the size of a semaphore; 0: it is none
	DelayLeft   time.Duration // how long the free lock is not granted; see [DelayAfterLoss]
	Age         time.Duration // how old the answer may be; zero for a linearizable read
}

// Held reports whether the lock is held.
func (l LockInfo) Held() bool { return l.HolderCount > 0 }

// HolderInfo is a grant as other clients see it.
type HolderInfo struct {
	Lock      string            // its name
	Token     uint64            // the fencing token of the grant
	Holder    string            // the name of its client, for people; see [Holder]
	Session   string            // the hash of its session, hexadecimal; empty: a detached grant
	Permits   int               // of a semaphore
	Shared    bool              // with other shared holders
	Remaining time.Duration     // until it ends if it is not renewed
	Since     time.Time         // by the wall clock of a node, for people only
	Value     []byte            // what [Value] or [Grant.SetValue] stored; nil: nothing
	Labels    map[string]string // the client's; see [Labels]
}

// IsLocked reports whether the lock is held. It is linearizable unless
// [Stale] allows an older answer.
//
// It waits until a node answers, the [ConnectTimeout] is over, or ctx ends. The errors are
// ErrUnavailable, ErrOverloaded if ctx ended while the cluster refused the read, ErrInvalid,
// ErrDenied, ErrClosed and the end of ctx. It changes nothing.
func (c *Client) IsLocked(ctx context.Context, name string, opts ...ReadOption) (bool, error) {
	lock, err := c.get(ctx, what{"look at lock", name}, opts)
	return lock.GetHolderCount() > 0, err
}

// Get returns the state of a lock. A lock that has never been held is a free one, and no
// error. What it waits for and its errors are those of [Client.IsLocked].
func (c *Client) Get(ctx context.Context, name string, opts ...ReadOption) (LockInfo, error) {
	w := what{"get lock", name}
	r, err := c.getAnswer(ctx, w, opts)
	if err != nil {
		return LockInfo{}, err
	}
	info := lockInfo(r.GetLock())
	info.Name = name
	info.Age = time.Duration(r.GetAgeNs())
	return info, nil
}

func (c *Client) get(ctx context.Context, w what, opts []ReadOption) (*apiv1.Lock, error) {
	r, err := c.getAnswer(ctx, w, opts)
	return r.GetLock(), err
}

// getting is a read of one lock under way, in one allocation.
type getting struct {
	waited
	operation apiv1.Operation
	oneof     apiv1.Operation_Get
	request   apiv1.GetRequest
}

func (c *Client) getAnswer(ctx context.Context, w what, opts []ReadOption) (*apiv1.GetResponse, error) {
	if err := checkText(w, "name", w.object, true); err != nil {
		return nil, err
	}
	stale, err := staleness(w, opts)
	if err != nil {
		return nil, err
	}
	if err := c.admit(ctx, w); err != nil {
		return nil, err
	}
	a, err := c.await(ctx, w, &newGetting(c, w.object, stale).waited)
	return a.GetGet(), err
}

func newGetting(c *Client, name string, stale time.Duration) *getting {
	o := &getting{}
	o.prepare(c)
	o.request.Name = name
	o.request.MaxStaleNs = int64(stale)
	o.oneof.Get = &o.request
	o.operation.Request = &o.oneof
	o.call.Op = &o.operation
	return o
}

func staleness(w what, opts []ReadOption) (time.Duration, error) {
	if len(opts) == 0 {
		return 0, nil
	}
	var o readOptions
	for _, f := range opts {
		f(&o)
	}
	if o.stale < 0 {
		return 0, invalid(w, "stale: is %v, must not be negative", o.stale)
	}
	return o.stale, nil
}

// ListOptions selects a page of the list of locks. The zero value is the first page, with
// a linearizable read.
type ListOptions struct {
	Limit int           // locks in a page, at most 1000; 0: 100
	After string        // only greater names: [Page.Next] of the page before
	Stale time.Duration // see [Stale]
}

// Page is a part of the list of locks, in the order of their names.
type Page struct {
	Locks []LockInfo    // in the order of their names; at most ListOptions.Limit
	Next  string        // for ListOptions.After; empty: this is the last page
	Age   time.Duration // how old the answer may be; zero for a linearizable read
}

// List returns the locks that are held or waited for and whose names begin with
// prefix. Each page is consistent in itself; the lock table may change between two pages.
// What it waits for and its errors are those of [Client.IsLocked].
func (c *Client) List(ctx context.Context, prefix string, o ListOptions) (Page, error) {
	w := what{"list locks", prefix}
	if o.Limit < 0 || o.Limit > 1000 {
		return Page{}, invalid(w, "limit: is %d, must be 0 to 1000", o.Limit)
	}
	if o.Stale < 0 {
		return Page{}, invalid(w, "stale: is %v, must not be negative", o.Stale)
	}
	if err := checkText(w, "prefix", prefix, false); err != nil {
		return Page{}, err
	}
	if err := checkText(w, "after", o.After, false); err != nil {
		return Page{}, err
	}
	a, err := c.ask(ctx, w, &apiv1.Operation{Request: &apiv1.Operation_List{List: &apiv1.ListRequest{
		Prefix: prefix, Limit: uint32(o.Limit), After: o.After, MaxStaleNs: int64(o.Stale),
	}}})
	if err != nil {
		return Page{}, err
	}
	r := a.GetList()
	page := Page{Next: r.GetNext(), Age: time.Duration(r.GetAgeNs()), Locks: make([]LockInfo, 0, len(r.GetLocks()))}
	for _, l := range r.GetLocks() {
		info := lockInfo(l)
		info.Age = page.Age
		page.Locks = append(page.Locks, info)
	}
	return page, nil
}

func lockInfo(l *apiv1.Lock) LockInfo {
	return LockInfo{
		Name:        l.GetName(),
		Holders:     holders(l.GetHolders()),
		HolderCount: int(l.GetHolderCount()),
		Waiters:     int(l.GetWaiters()),
		Limit:       int(l.GetLimit()),
		DelayLeft:   time.Duration(l.GetDelayLeftNs()),
	}
}

func holders(in []*apiv1.Holder) []HolderInfo {
	if len(in) == 0 {
		return nil
	}
	out := make([]HolderInfo, 0, len(in))
	for _, h := range in {
		info := HolderInfo{
			Lock:      h.GetLock(),
			Token:     h.GetToken(),
			Holder:    h.GetHolder(),
			Session:   hex.EncodeToString(h.GetSession()),
			Permits:   int(h.GetPermits()),
			Shared:    h.GetMode() == apiv1.Mode_MODE_SHARED,
			Remaining: time.Duration(h.GetRemainingNs()),
			Since:     time.UnixMilli(h.GetSinceUnixMs()),
			Value:     h.GetValue(),
		}
		if len(h.GetLabels()) > 0 {
			info.Labels = make(map[string]string, len(h.GetLabels()))
			for _, l := range h.GetLabels() {
				info.Labels[l.GetKey()] = l.GetValue()
			}
		}
		out = append(out, info)
	}
	return out
}
