//go:build unix

package main

import (
	"errors"
	"net"
	"strings"
	"syscall"
	"testing"

	"github.com/locknode/locknode/client"
)

// said is the status of a ready node in a cluster with this many voters.
func said(id string, term uint64, voters, healthy int, votes bool) nodeStatus {
	s := client.Status{
		NodeID: id, LeaderID: "n1", Term: term, Ready: true,
		Voters: voters, VotersHealthy: healthy, Voter: votes, VoterReady: votes,
	}
	if !votes {
		s.VoterReason = "it does not vote yet"
	}
	return nodeStatus{id: id, address: id + ":1", role: "voter", status: s}
}

func TestWaitEndsWhenOneMoreVoterMayFail(t *testing.T) {
	silent := nodeStatus{id: "n9", address: "n9:1", role: "voter", err: errors.New("it hangs")}
	unready := nodeStatus{id: "n8", address: "n8:1", role: "voter", status: client.Status{NodeID: "n8", Term: 9, NotReadyReason: "no leader is known"}}
	for name, c := range map[string]struct {
		nodes   []nodeStatus
		voters  int
		missing string // part of it; empty: nothing is
	}{
		"nobody answers":               {[]nodeStatus{silent}, 0, "n9:1: it hangs"},
		"nobody is ready":              {[]nodeStatus{silent, unready}, 0, "no leader is known"},
		"one is ready":                 {[]nodeStatus{silent, unready, said("n1", 2, 3, 2, true)}, 0, ""},
		"all vote":                     {[]nodeStatus{said("n1", 2, 3, 3, true)}, 3, ""},
		"more than asked for":          {[]nodeStatus{said("n1", 2, 5, 5, true)}, 3, ""},
		"one does not answer":          {[]nodeStatus{said("n1", 2, 3, 2, true)}, 3, "2 of the cluster's 3 voters answer the leader, 3 must"},
		"the number is not known yet":  {[]nodeStatus{said("n1", 2, 0, 0, true)}, 3, "does not know yet"},
		"a failed voter is a member":   {[]nodeStatus{said("n1", 2, 4, 3, true)}, 3, "remove members that are gone for good"},
		"as many may fail as in three": {[]nodeStatus{said("n1", 2, 5, 4, true)}, 3, ""},
		"two of five have failed":      {[]nodeStatus{said("n1", 2, 5, 3, true)}, 3, "2 of the cluster's 5 voters"},
		"two voters of two":            {[]nodeStatus{said("n1", 2, 2, 2, true)}, 2, ""},
		"the new one does not vote":    {[]nodeStatus{said("n1", 2, 3, 3, true), said("n4", 2, 3, 3, false)}, 3, "n4 is not a voter yet: it does not vote yet"},
		"one that is not ready":        {[]nodeStatus{said("n1", 2, 3, 3, true), unready}, 3, "n8 is not a voter yet"},
		"an earlier term":              {[]nodeStatus{said("n1", 2, 3, 3, true), said("n2", 3, 3, 2, true)}, 3, "2 of the cluster's 3 voters"},
	} {
		_, missing := waitedFor(c.nodes, c.voters)
		switch {
		case c.missing == "" && missing != nil:
			t.Errorf("%s: got %q missing, want nothing", name, missing)
		case c.missing != "" && (missing == nil || !strings.Contains(missing.Error(), c.missing)):
			t.Errorf("%s: got %v missing, want %q", name, missing, c.missing)
		}
	}
}

func TestCheckTellsAnOutageFromALoss(t *testing.T) {
	silent := nodeStatus{id: "n3", address: "n3:1", role: "voter", err: errors.New("it hangs")}
	unready := nodeStatus{id: "n2", role: "voter", status: client.Status{NodeID: "n2", NotReadyReason: "no leader is known"}}
	stranger := silent
	stranger.role = string(client.RoleNone)
	one, two := said("n1", 2, 3, 3, true), said("n2", 2, 3, 3, true)
	missing := func(id string) nodeStatus {
		n := said(id, 2, 3, 2, true)
		n.status.VoterReady, n.status.VoterReason = false, "n3 does not answer the leader"
		return n
	}
	for name, c := range map[string]struct {
		nodes []nodeStatus
		code  int
		text  string
	}{
		"all well":                   {[]nodeStatus{one, two}, 0, ""},
		"one that is no member":      {[]nodeStatus{one, stranger}, 0, ""},
		"one of an earlier version":  {[]nodeStatus{one, said("n2", 2, 0, 0, false)}, 0, ""},
		"one hangs":                  {[]nodeStatus{one, two, silent}, 1, "n3 does not answer: it hangs"},
		"one is not ready":           {[]nodeStatus{one, unready}, 1, "n2 is not ready: no leader is known"},
		"one does not vote":          {[]nodeStatus{one, said("n2", 2, 3, 3, false)}, 1, "n2: it does not vote yet"},
		"one that two others report": {[]nodeStatus{missing("n1"), missing("n2")}, 1, "the cluster is not healthy: n3 does not answer the leader"},
		"none is ready":              {[]nodeStatus{unready, silent}, 69, "no leader is known"},
		"none is in a cluster":       {[]nodeStatus{{id: "n2", status: unready.status}}, 69, "no leader is known"},
		"only a stranger is ready":   {[]nodeStatus{unready, {id: "n4", role: string(client.RoleNone), status: one.status}}, 69, "no leader is known"},
		"no member is where it was":  {[]nodeStatus{{id: "n3", role: "voter", err: errors.New("its API address is not known")}}, 69, "n3 does not answer: its API address is not known"},
	} {
		err := checkHealth(c.nodes)
		if got := exitCode(err); got != c.code || err != nil && strings.Count(err.Error(), c.text) != 1 {
			t.Errorf("%s: got %d, %v, want %d and %q", name, got, err, c.code, c.text)
		}
	}
}

// TestExitCodeSaysHowTheClusterIs follows a cluster of processes through the loss of a node,
// an outage and its end.
func TestExitCodeSaysHowTheClusterIs(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a cluster of processes")
	}
	t.Parallel()
	cluster := startCluster(t, clusterOptions())
	check := func(when string, code int, text string) {
		t.Helper()
		eventually(t, when, func() bool {
			o := locknodeAt(t, cluster.Endpoints(), "status", "--check")
			return o.code == code && strings.Contains(o.stderr, text)
		})
		if o := locknodeAt(t, cluster.Endpoints(), "status"); o.code != 0 {
			t.Errorf("%s: without --check: got %+v, want exit code 0", when, o)
		}
	}
	check("all is well", 0, "")
	locknodeAt(t, cluster.Endpoints(), "wait").succeeds(t)
	locknodeAt(t, cluster.Endpoints(), "wait", "--voters", "3").succeeds(t)

	nodes := cluster.Nodes()
	if err := nodes[2].Kill(); err != nil {
		t.Fatal(err)
	}
	check("one is gone", exitOther, nodes[2].ID+" does not answer: connection refused")
	eventually(t, "the missing voter is reported", func() bool {
		o := locknodeAt(t, cluster.Endpoints(), "wait", "--voters", "3", "--timeout", "100ms")
		return o.code == exitNotAcquired && strings.Contains(o.stderr, "2 of the cluster's 3 voters answer the leader, 3 must")
	})
	locknodeAt(t, cluster.Endpoints(), "wait").succeeds(t)

	if err := nodes[1].Kill(); err != nil {
		t.Fatal(err)
	}
	check("an outage", exitUnavailable, "no node is ready")
	o := locknodeAt(t, cluster.Endpoints(), "wait", "--timeout", "200ms", "-o", "json")
	if o.code != exitNotAcquired || !strings.Contains(o.stderr, `"exit_code":75`) || o.stdout != "" {
		t.Errorf("wait in an outage: got %+v, want exit code 75 and an error", o)
	}

	waiting := command(t, "locknode", "wait", "--timeout", "1m", "-o", "json")
	waiting.Env = append(waiting.Env, "LOCKNODE_ENDPOINTS="+strings.Join(cluster.Endpoints(), ","))
	r := start(t, waiting)
	for _, n := range nodes[1:] {
		if err := n.Start(); err != nil {
			t.Fatal(err)
		}
	}
	r.await(`{"leader":"`)
	if code := r.wait(); code != 0 {
		t.Errorf("wait for the end of an outage: exit code %d, want 0", code)
	}
	locknodeAt(t, cluster.Endpoints(), "wait", "--voters", "3", "--timeout", "1m").succeeds(t)
	check("all is well again", 0, "")
}

func TestWaitThatIsInterruptedEndsAsByTheSignal(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	r := start(t, command(t, "locknode", "wait", "--endpoints", l.Addr().String()))
	conn, err := l.Accept() // the listener is asked and does not answer
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	r.signal(syscall.SIGTERM)
	if code := r.wait(); code != exitSignal+int(syscall.SIGTERM) {
		t.Errorf("exit code %d, want that of TERM", code)
	}
}
