//go:build unix

package chaos

import (
	"context"
	"strings"

	"github.com/locknode/locknode/internal/proc"
)

// judge looks at what must be true when all is over. Of a cluster that does not
// come back there is no more to be said than that, and what its nodes have printed.
func (r *run) judge(stuck bool) {
	r.do("looking at what is left")
	r.stop() // the nodes are compared when nobody changes anything any more
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

// readLogs complains about what no node may ever print.
func (r *run) readLogs(n *proc.Node) {
	for _, c := range complaints(n.Logs()) {
		r.violate("liveness", "logs", "", "node %s printed:\n%s", n.ID, c)
	}
}

// complaints finds in what a node has printed what no node may ever print.
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
