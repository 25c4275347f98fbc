package main

import (
	"strings"
	"testing"
	"time"

	"github.com/locknode/locknode/client"
)

func TestWaitingNamesWhatIsKnown(t *testing.T) {
	since := time.Date(2026, 5, 4, 3, 2, 1, 0, time.Local)
	holder := func(name string, token uint64) client.HolderInfo {
		return client.HolderInfo{Holder: name, Token: token, Since: since}
	}
	for _, c := range []struct {
		lock client.LockInfo
		want string
	}{
		{client.LockInfo{Name: "a"}, "waiting for a"},
		{client.LockInfo{Name: "a\nb", Waiters: 1}, `waiting for "a\nb"; next in the queue`},
		{client.LockInfo{Name: "a", DelayLeft: 1500 * time.Millisecond, Waiters: 3},
			"waiting for a: its holder was lost, so it is not granted for another 1.5s; 3 in the queue"},
		{client.LockInfo{Name: "a", HolderCount: 1, Holders: []client.HolderInfo{holder("alice", 7)}, Waiters: 2},
			"waiting for a: held by alice (token 7) since 2026-05-04 03:02:01; 2 in the queue"},
		{client.LockInfo{Name: "a", HolderCount: 2, Holders: []client.HolderInfo{holder("\u202eeve", 7)}, Waiters: 1},
			`waiting for a: held by "\u202eeve" (token 7) since 2026-05-04 03:02:01, 1 more; next in the queue`},
	} {
		if got := waitingText(c.lock); got != c.want {
			t.Errorf("%+v:\ngot  %s\nwant %s", c.lock, got, c.want)
		}
	}
	if strings.Contains(waitingText(client.LockInfo{Name: "a"}), "\n") {
		t.Error("more than one line")
	}
}
