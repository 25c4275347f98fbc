package node

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/locknode/locknode/client"
)

// TestCloseWhileTheNodeStartsLeavesNothing closes a node at any moment of its start. goleak
// then looks for goroutines that are left.
func TestCloseWhileTheNodeStartsLeavesNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir() // has state from the second time on
	for i := range 40 {
		n, err := Open(t.Context(), Config{ID: "n1", DataDir: dir, Listen: "127.0.0.1:0", BootstrapExpect: 1, Fast: true})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(i) * 500 * time.Microsecond)
		if err := n.Close(); err != nil {
			t.Errorf("Close %d: %v", i, err)
		}
		if err := n.Close(); err != nil {
			t.Errorf("Close %d, again: %v", i, err)
		}
	}
}

func TestANodeThatIsClosedSaysSo(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 1)
	n := c.nodes[0]
	waited := make(chan error, 1)
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	go func() { waited <- n.WaitReady(context.Background()) }()
	if err := <-waited; err == nil || !strings.HasSuffix(err.Error(), "it was closed") {
		t.Errorf("WaitReady = %v", err)
	}
	late := n.Client()
	if _, err := late.Lock(context.Background(), "x"); !errors.Is(err, client.ErrClosed) {
		t.Errorf("Lock of a client made after Close: %v, want %v", err, client.ErrClosed)
	}
	if err := late.Close(); err != nil {
		t.Errorf("Close of this client: %v", err)
	}
}

// The clients of a failed node return ErrClosed, and their grants are lost.
func TestTheClientsOfAFailedNodeReturnErrClosed(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 1)
	n := c.nodes[0]
	cl := n.Client()
	g, err := cl.Lock(c.ctx(), "x")
	if err != nil {
		t.Fatal(err)
	}
	failure := errors.New("the test ends it")
	n.fail(failure)
	select {
	case <-g.Lost():
	case <-time.After(patience):
		t.Fatal("the grant is still valid")
	}
	<-n.Done()
	if _, err := cl.Lock(context.Background(), "y"); !errors.Is(err, client.ErrClosed) {
		t.Errorf("Lock after the node has failed: %v, want %v", err, client.ErrClosed)
	}
	if err := n.WaitReady(context.Background()); !errors.Is(err, failure) {
		t.Errorf("WaitReady = %v, want %v", err, failure)
	}
}
