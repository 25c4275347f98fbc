package simnet

import (
	"context"
	"testing"
	"time"
)

// TestALinkIsMendedWhenNoReasonIsLeft: the end of one fault does not end another.
func TestALinkIsMendedWhenNoReasonIsLeft(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, n *Network) {
		a, b := n.Host("a"), n.Host("b")
		addr := mustListen(t, b, ":1").Addr().String()
		reaches := func() bool {
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			defer cancel()
			_, err := a.Dial(ctx, addr)
			return err == nil
		}
		for _, fault := range []struct {
			name         string
			begin, first func()
			second       func()
		}{
			{"both isolated, one rejoins", func() { n.Isolate("a"); n.Isolate("b") }, func() { n.Rejoin("a") }, func() { n.Rejoin("b") }},
			{"cut and isolated, rejoins", func() { n.Cut("a", "b"); n.Isolate("a") }, func() { n.Rejoin("a") }, func() { n.Mend("a", "b") }},
			{"cut and isolated, mended", func() { n.Cut("a", "b"); n.Isolate("b") }, func() { n.Mend("a", "b") }, func() { n.Rejoin("b") }},
		} {
			fault.begin()
			fault.first()
			if reaches() {
				t.Errorf("%s: the link is open, and one reason is left", fault.name)
			}
			fault.second()
			if !reaches() {
				t.Errorf("%s: the link is cut, and no reason is left", fault.name)
			}
		}
	})
}
