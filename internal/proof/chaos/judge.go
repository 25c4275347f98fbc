//go:build unix

package chaos

import (
	"context"
	"regexp"
	"strings"

	"github.com/locknode/locknode/internal/proof/proc"
)

// judge checks what must be true at the end. For a cluster that does not come back it only
// reports that, and what its nodes have printed.
func (r *run) judge(stuck bool) {
	r.do("looking at what is left")
	r.stop() // the nodes are compared when no client changes anything any more
	for _, n := range r.cluster.Nodes() {
		r.readLogs(n)
	}
	for _, p := range r.probes {
		if err := p.gaveUp(); err != nil {
			r.violate("recovery", "probes", "", "%v", err)
		}
	}
	r.result.Kept = r.keeper.count()
	if stuck || r.whole() != nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	missing, err := r.keeper.missing(ctx)
	if err != nil {
		r.violate("liveness", "kept", "", "%v", err)
	}
	r.result.ReadBack = err == nil
	for _, m := range missing {
		r.violate("S7", "kept", "", "%s", m)
	}
	if err := r.cluster.Agree(ctx); err != nil {
		r.violate("S9", "digest", "", "%v", err)
	}
}

// readLogs reports lines that no node may ever print, and terms that two nodes have led.
func (r *run) readLogs(n *proc.Node) {
	logs := n.Logs()
	for _, c := range complaints(logs) {
		r.violate("liveness", "logs", "", "node %s printed:\n%s", n.ID, c)
	}
	if strings.Contains(logs, alarm) {
		r.violate("S9", "logs", "", "node %s has found that another node's state differs", n.ID)
	}
	for _, term := range termsLed(logs) {
		if other := r.ledBy[term]; other != "" && other != n.ID {
			r.violate("S1", "logs", "", "%s and %s both led in term %s", other, n.ID, term)
		}
		if r.ledBy == nil {
			r.ledBy = make(map[string]string)
		}
		r.ledBy[term] = n.ID
	}
}

// alarm is what a node logs when it finds that another one's state differs.
const alarm = "two nodes are in different states at the same place of the log"

var leadsLine = regexp.MustCompile(`msg="leading the cluster" .*\bterm=(\d+)`)

// termsLed are the terms in which a node has led, as it has logged.
func termsLed(logs string) (terms []string) {
	for _, m := range leadsLine.FindAllStringSubmatch(logs, -1) {
		terms = append(terms, m[1])
	}
	return terms
}

// complaints returns the lines of a node that no node may ever print.
func complaints(logs string) (found []string) {
	const most = 40 // lines
	for _, bad := range []string{"panic: ", "fatal error: ", "WARNING: DATA RACE"} {
		if at := strings.Index(logs, bad); at >= 0 {
			lines := strings.SplitN(logs[at:], "\n", most+1)
			found = append(found, strings.Join(lines[:min(most, len(lines))], "\n"))
		}
	}
	return found
}
