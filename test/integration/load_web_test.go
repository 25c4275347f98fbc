//go:build unix

package integration

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/locknode/locknode/internal/proof/proc"
)

// webLoad makes a load of HTTP requests, each to another node than the one before. A node that
// does not answer or is unavailable is no error: the request goes to the next one under the
// same ID.
func (l *load) webLoad(t *testing.T, c *proc.Cluster) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	stopAll := l.cancel
	l.cancel = func() {
		stopAll()
		cancel()
	}
	var nodes []*web
	for _, n := range c.Nodes() {
		nodes = append(nodes, browse(t, n.HTTP()))
	}
	for i := range 2 {
		w := &webWorker{load: l, nodes: nodes, next: i, who: fmt.Sprintf("http %d", i)}
		l.wg.Go(func() { w.work(ctx) })
	}
}

// webWorker locks and unlocks over HTTP.
type webWorker struct {
	load  *load
	nodes []*web
	next  int // node
	who   string
}

func (w *webWorker) work(ctx context.Context) {
	for i := 0; ctx.Err() == nil; i++ {
		if err := w.cycle(fmt.Sprintf("%s, request %d", w.who, i)); err != nil {
			w.load.fail(fmt.Errorf("%s: %w", w.who, err))
			return
		}
		w.load.cycled()
	}
}

func (w *webWorker) cycle(id string) error {
	const name, ttl = "shared by HTTP", time.Minute
	asked := time.Now()
	var got grantView
	if _, err := w.ask("/v1/acquire", object{
		"name": name, "ttl": ttl.String(), "wait": "1m", "request_id": id, "holder": w.who}, &got, 200); err != nil {
		return err
	}
	// It counts as held for its TTL, counted from before the request, and at most until it
	// is released.
	held := &claim{lock: name, token: got.Token, who: w.who, asked: asked, from: time.Now()}
	time.Sleep(time.Millisecond) // the length of the work under the lock
	held.until = time.Now()
	if late := asked.Add(ttl); held.until.After(late) {
		held.until = late
	}
	w.load.add(held)
	// A release has no ID: one that is sent again may find that it was done.
	tries, err := w.ask("/v1/release", object{"name": name, "token": got.Token}, &got, 200, 404)
	if err == nil && got.Name == "" && tries == 1 {
		return errors.New("a release that was sent once was refused")
	}
	return err
}

// ask sends a request to one node after the other until one has done it.
func (w *webWorker) ask(path string, body object, into *grantView, allowed ...int) (tries int, err error) {
	call, cancel := w.load.call()
	defer cancel()
	for tries = 1; call.Err() == nil; tries++ {
		w.next = (w.next + 1) % len(w.nodes)
		var a webAnswer
		if a, err = w.nodes[w.next].try(call, path, body); err != nil {
			time.Sleep(10 * time.Millisecond) // all three may be down at the moment
			continue
		}
		for _, status := range allowed {
			if a.status == status {
				*into = grantView{}
				return tries, json.Unmarshal(a.body, into)
			}
		}
		if err = fmt.Errorf("%s: HTTP status %d: %s", path, a.status, a.body); a.status != 503 {
			return tries, err
		}
	}
	return tries, fmt.Errorf("%w: %w", context.Cause(call), err)
}
