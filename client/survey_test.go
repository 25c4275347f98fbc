package client

import (
	"context"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	apiv1 "github.com/locknode/locknode/api/v1"
)

// silent listens, so that connections are made, and sends nothing, as a process that was
// stopped.
func silent(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// behindSilent returns a ring of one node that is last in the list of endpoints, after
// others that are silent.
func behindSilent(t *testing.T, others int) (*ring, []string) {
	t.Helper()
	r := newRing(t, 1)
	r.nodes[0].stop()
	var listeners []net.Listener
	for range others + 1 {
		listeners = append(listeners, silent(t))
	}
	slices.SortFunc(listeners, func(a, b net.Listener) int { return strings.Compare(a.Addr().String(), b.Addr().String()) })
	var endpoints []string
	for _, l := range listeners {
		endpoints = append(endpoints, l.Addr().String())
	}
	r.nodes[0].addr = endpoints[others]
	r.nodes[0].serve(listeners[others])
	return r, endpoints
}

// However many endpoints do not answer, all are asked at once. One after the other they would
// take a second each.
func TestOperatorCallsDoNotWaitForNodesThatDoNotAnswer(t *testing.T) {
	r, endpoints := behindSilent(t, 20)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for name, call := range map[string]func(c *Client) error{
		"Status":             func(c *Client) error { _, err := c.Status(ctx); return err },
		"Members":            func(c *Client) error { _, err := c.Members(ctx); return err },
		"TransferLeadership": func(c *Client) error { _, err := c.TransferLeadership(ctx, ""); return err },
		"RemoveMember":       func(c *Client) error { return c.RemoveMember(ctx, "known") },
	} {
		c, err := Dial(ctx, endpoints)
		if err != nil {
			t.Fatal(err)
		}
		if err := call(c); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := c.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
	if n := r.nodes[0].transferCount(); n != 1 {
		t.Errorf("the node was asked %d times to hand over, want once", n)
	}
}

// A hand-over is sent to one node only, so that it is not done twice.
func TestHandOverIsAskedOfOneNode(t *testing.T) {
	for name, prepare := range map[string]func(r *ring){
		"all answer":            func(*ring) {},
		"there is no leader":    func(r *ring) { r.lead(nil) },
		"the leader is cut off": func(r *ring) { r.nodes[0].stop(); r.show(r.nodes[0].addr) },
		"the leader is unknown": func(r *ring) { r.show("127.0.0.1:1") },
		"the answer is lost":    func(r *ring) { r.nodes[0].losesAnswer = true },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRing(t, 3)
			c := r.dial(r.nodes)
			prepare(r)
			lost := name == "the answer is lost"
			if _, err := c.TransferLeadership(t.Context(), ""); (err != nil) != lost {
				t.Errorf("TransferLeadership: %v", err)
			}
			sum := 0
			for _, n := range r.nodes {
				sum += n.transferCount()
			}
			if sum != 1 {
				t.Errorf("%d nodes were asked, want one", sum)
			}
			if led := r.nodes[0].transferCount(); name == "all answer" && led != 1 {
				t.Error("a follower was asked, and the leader was there")
			}
		})
	}
}

// The context ends while nodes are waited for, and the error names each of them.
func TestFailedOperatorCallNamesEachNode(t *testing.T) {
	t.Parallel()
	r := newRing(t, 1)
	r.nodes[0].stop()
	one, two := silent(t).Addr().String(), silent(t).Addr().String()
	c, err := Dial(t.Context(), []string{one, two, r.nodes[0].addr})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, err = c.Members(ctx)
	wantErr(t, "Members", err, ErrUnavailable)
	wantErr(t, "Members", err, context.DeadlineExceeded)
	if apiv1.CodeOf(err) != apiv1.CodeUnavailable {
		t.Errorf("Members: code %v, want unavailable", apiv1.CodeOf(err))
	}
	for _, addr := range []string{one, two, r.nodes[0].addr} {
		if !strings.Contains(err.Error(), addr+": ") {
			t.Errorf("Members: %v, which does not name %s", err, addr)
		}
	}
}

// A removal that the cluster cannot commit is given up, and the error says that it may
// still be done.
func TestRemovalWithUnknownOutcomeIsNotRepeatedForEver(t *testing.T) {
	t.Parallel()
	r := newRing(t, 2)
	c := r.dial(r.nodes, ConnectTimeout(100*time.Millisecond))
	for _, n := range r.nodes {
		n.mu.Lock()
		n.neverRemoves = true
		n.mu.Unlock()
	}
	if err := c.RemoveMember(t.Context(), "known"); apiv1.CodeOf(err) != apiv1.CodeUnknownOutcome || !strings.Contains(err.Error(), "may have been done") {
		t.Errorf("RemoveMember: got %v, want unknown_outcome", err)
	}
}

// If a removal was not answered, and the member is gone when it is repeated, it was removed.
func TestRemovalThatWasNotAnsweredIsDone(t *testing.T) {
	r := newRing(t, 2)
	c := r.dial(r.nodes)
	for _, n := range r.nodes {
		n.mu.Lock()
		n.losesAnswer = true
		n.mu.Unlock()
	}
	if err := c.RemoveMember(t.Context(), "known"); err != nil {
		t.Errorf("RemoveMember: %v", err)
	}
	if err := c.RemoveMember(t.Context(), "known"); apiv1.CodeOf(err) != apiv1.CodeNoMember {
		t.Errorf("RemoveMember once more: %v, want no_member", err)
	}
}
