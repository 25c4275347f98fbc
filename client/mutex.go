package client

import "context"

// Mutex is a name with its options, for a lock that is used in several places.
// It has no state: what is held is the [Grant], so that only the caller that has
// locked can unlock. It is safe for concurrent use.
type Mutex struct {
	c    *Client
	name string
	opts []LockOption
}

// Mutex returns a Mutex with that name. The options apply to every acquire.
func (c *Client) Mutex(name string, opts ...LockOption) *Mutex {
	return &Mutex{c, name, opts}
}

// Lock is [Client.Lock].
func (m *Mutex) Lock(ctx context.Context) (*Grant, error) {
	return m.c.Lock(ctx, m.name, m.opts...)
}

// TryLock is [Client.TryLock].
func (m *Mutex) TryLock(ctx context.Context) (*Grant, error) {
	return m.c.TryLock(ctx, m.name, m.opts...)
}

// Do is [Client.Do].
func (m *Mutex) Do(ctx context.Context, fn func(ctx context.Context, g *Grant) error) error {
	return m.c.Do(ctx, m.name, fn, m.opts...)
}

// IsLocked is [Client.IsLocked].
func (m *Mutex) IsLocked(ctx context.Context, opts ...ReadOption) (bool, error) {
	return m.c.IsLocked(ctx, m.name, opts...)
}

// Guard returns a function that calls fn under the lock whose name is key of the argument:
// calls with the same name run one after the other, in the whole cluster. It is
// [Client.Do] for functions: if the lock is lost while fn runs, fn's context
// ends and the error is an ErrLost, returned with fn's result. The function is safe for
// concurrent use if key and fn are.
func Guard[A, R any](c *Client, key func(A) string, fn func(context.Context, A) (R, error), opts ...LockOption) func(context.Context, A) (R, error) {
	return guarded(c, "lock", false, key, fn, opts)
}

// TryGuard is [Guard] for calls that do not wait, as [Client.TryLock] is for Lock: while a
// call runs, others with the same name return [ErrBusy] without calling fn.
func TryGuard[A, R any](c *Client, key func(A) string, fn func(context.Context, A) (R, error), opts ...LockOption) func(context.Context, A) (R, error) {
	return guarded(c, "try to lock", true, key, fn, opts)
}

func guarded[A, R any](c *Client, verb string, try bool, key func(A) string, fn func(context.Context, A) (R, error), opts []LockOption) func(context.Context, A) (R, error) {
	return func(ctx context.Context, arg A) (R, error) {
		var result R
		q := request{what: what{verb, key(arg)}, try: try, within: true}
		err := c.do(ctx, q, func(ctx context.Context, _ *Grant) error {
			var err error
			result, err = fn(ctx, arg)
			return err
		}, opts)
		return result, err
	}
}
