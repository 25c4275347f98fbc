package node

import (
	"encoding/hex"
	"errors"
	"strings"
	"testing"
	"time"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/client"
)

// An operator sees who takes what, through any node, and can end it: the holder and all
// waiters get who did it and why, and no session's ID is shown.
func TestOperatorSeesAndEndsWhatIsInTheWay(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3)
	greedy, err := client.Dial(t.Context(), []string{c.follower().APIAddr()}, client.Holder("greedy"), client.SessionTTL(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = greedy.Close() }()
	held, err := greedy.Lock(t.Context(), "line")
	if err != nil {
		t.Fatal(err)
	}
	const waiters = 3
	ends := make(chan error, waiters)
	for range waiters {
		go func() {
			_, err := greedy.Lock(t.Context(), "line")
			ends <- err
		}()
	}
	operator, err := client.Dial(t.Context(), []string{c.follower().APIAddr()}, client.Holder("operator"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = operator.Close() }()
	c.eventually("three waiters", func() bool {
		info, err := operator.Get(t.Context(), "line")
		return err == nil && info.Waiters == waiters
	})

	sessions, next, err := operator.Sessions(t.Context(), client.SessionsFilter{Lock: "line"})
	if err != nil || next != 0 || len(sessions) != 1 {
		t.Fatalf("sessions on the lock: %+v, next %d, %v", sessions, next, err)
	}
	s := sessions[0]
	if s.Owner != "127.0.0.1" || s.Holder != "greedy" || s.Grants != 1 || s.Waiters != waiters || s.TTL != time.Hour || s.Bytes == 0 {
		t.Errorf("the session: %+v", s)
	}
	info, err := operator.Get(t.Context(), "line")
	if err != nil || info.Holders[0].Session != s.Hash || len(s.Hash) != 16 {
		t.Errorf("the lock shows session %q, want the hash %q, %v", info.Holders[0].Session, s.Hash, err)
	}
	status, err := operator.Status(t.Context())
	if err != nil || status.TableBytes <= 0 || status.TableBytesLimit <= 0 || len(status.TopOwners) == 0 {
		t.Errorf("status: %v, %v", status, err)
	}

	grants, ended, err := operator.Clear(t.Context(), "line", "all of them are gone")
	if err != nil || grants != 1 || ended != waiters {
		t.Fatalf("clear: %d grants, %d waiters, %v", grants, ended, err)
	}
	for range waiters {
		err := <-ends
		if apiv1.CodeOf(err) != apiv1.CodeRevoked || !strings.Contains(err.Error(), "127.0.0.1: all of them are gone") {
			t.Errorf("a waiter got %v", err)
		}
	}
	c.eventually("the holder is notified", func() bool { return held.Err() != nil })
	var lost *client.LostError
	if !errors.As(held.Err(), &lost) || lost.Who != "127.0.0.1" || lost.Why != "all of them are gone" {
		t.Errorf("the holder got %v", held.Err())
	}

	again, err := greedy.Lock(t.Context(), "line")
	if err != nil {
		t.Fatal(err)
	}
	if err := operator.KillSession(t.Context(), s.Hash, "runs wild"); err != nil {
		t.Fatal(err)
	}
	c.eventually("the holder is notified of the end of its session", func() bool { return again.Err() != nil })
	if !errors.As(again.Err(), &lost) || lost.Who != "127.0.0.1" || lost.Why != "runs wild" {
		t.Errorf("the holder got %v", again.Err())
	}
	if err := operator.KillSession(t.Context(), s.Hash, "again"); !errors.Is(err, client.ErrSession) {
		t.Errorf("kill of a session that has ended: %v", err)
	}
	if killed, err := operator.KillSessionsOf(t.Context(), "10.0.0.9", "nobody"); err != nil || killed != (client.Killed{}) {
		t.Errorf("kill of the sessions of an owner that has none: %+v, %v", killed, err)
	}
	if _, err := operator.Detached().Acquire(t.Context(), "script", time.Hour); err != nil {
		t.Fatal(err)
	}
	if killed, err := operator.KillSessionsOf(t.Context(), "127.0.0.1", "all"); err != nil || killed.Grants != 1 {
		t.Errorf("kill of all that came from here: %+v, %v; want one grant of no session", killed, err)
	}
	if info, err := operator.Get(t.Context(), "script"); err != nil || info.HolderCount != 0 {
		t.Errorf("the grant of no session: %+v, %v", info, err)
	}
	if _, err := hex.DecodeString(s.Hash); err != nil {
		t.Error(err)
	}
}

// Limits are changed for all nodes at once; what is not allowed changes nothing.
func TestOperatorChangesLimits(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 1)
	operator := c.client(c.nodes[0])
	before, after, err := operator.SetLimits(t.Context(), map[string]int64{"sessions": 4, "max_ttl": int64(time.Hour)})
	if err != nil || len(before) != 2 || before[0].Value != int64(24*time.Hour) && before[1].Value != int64(24*time.Hour) || len(after) != 2 {
		t.Fatalf("before %+v, after %+v, %v", before, after, err)
	}
	for what, values := range map[string]map[string]int64{
		"there is no limit": {"no_such": 1}, "is allowed": {"sessions": -1}, "nothing": {}, "no session could be opened": {"min_ttl": int64(2 * time.Hour)},
		"1048576": {"table_bytes": 1},
	} {
		if _, _, err := operator.SetLimits(t.Context(), values); !errors.Is(err, client.ErrInvalid) || what != "nothing" && !strings.Contains(err.Error(), what) {
			t.Errorf("%v: %v, want invalid, with %q", values, err, what)
		}
	}
	limits, err := operator.Limits(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range limits {
		if want, changed := map[string]int64{"sessions": 4, "max_ttl": int64(time.Hour)}[l.Name]; changed && l.Value != want {
			t.Errorf("%s is %d, want %d", l.Name, l.Value, want)
		}
		if l.Value < 1 {
			t.Errorf("%s is %d", l.Name, l.Value)
		}
	}
}
