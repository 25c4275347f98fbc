package certs

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestInspectFindsWhatANodeOrClientLacks(t *testing.T) {
	ca, other := newCA(t, "CA"), newCA(t, "Other")
	two := &x509.Certificate{Subject: pkix.Name{CommonName: "two"}, ExtKeyUsage: bothEnds, URIs: append(uriOf(nodeID("n1")), uriOf(nodeID("n2"))...)}
	for name, c := range map[string]struct {
		pair      Pair
		at        time.Time
		trusted   []*CA
		node      string // why not; "" if it can be used
		client    string
		faults    int
		signed    bool
		unchecked bool
	}{
		"node":              {pair: issue(t, ca, nodeID("n1")), trusted: []*CA{ca}, signed: true},
		"of two CAs":        {pair: issue(t, ca, nodeID("n1")), trusted: []*CA{other, ca}, signed: true},
		"CA not given":      {pair: issue(t, ca, nodeID("n1")), unchecked: true},
		"client":            {pair: issue(t, ca, clientID("c")), trusted: []*CA{ca}, node: "has no URI locknode://CLUSTER/node/ID", signed: true},
		"another CA's":      {pair: issue(t, ca, nodeID("n1")), trusted: []*CA{other}, node: "is signed by", client: "is signed by", faults: 1},
		"ended":             {pair: issue(t, ca, nodeID("n1")), at: start.Add(366 * aDay), trusted: []*CA{ca}, node: "must be valid now", client: "must be valid now", faults: 1, signed: true},
		"early":             {pair: issue(t, ca, nodeID("n1")), at: start.Add(-aDay), trusted: []*CA{ca}, node: "must be valid now", client: "must be valid now", faults: 2, signed: true}, // the CA as well
		"for servers alone": {pair: custom(t, ca, &x509.Certificate{ExtKeyUsage: bothEnds[:1], URIs: uriOf(nodeID("n1"))}), trusted: []*CA{ca}, node: "clientAuth", client: "clientAuth", signed: true},
		"two names":         {pair: custom(t, ca, two), trusted: []*CA{ca}, node: "has 2 URIs", client: "has 2 URIs", faults: 1, signed: true},
		"from elsewhere":    {pair: custom(t, ca, &x509.Certificate{ExtKeyUsage: bothEnds}), trusted: []*CA{ca}, node: "has no URI", signed: true},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			paths := []string{write(t, filepath.Join(dir, "crt"), c.pair.Cert), write(t, filepath.Join(dir, "key"), c.pair.Key)}
			if len(c.trusted) > 0 {
				paths = append(paths, write(t, filepath.Join(dir, "ca"), caPEM(t, c.trusted...)))
			}
			at := c.at
			if at.IsZero() {
				at = start
			}
			in := Inspect(paths, at)
			one := in.Certs[0]
			for what, why := range map[string][2]string{"node": {strings.Join(one.NotNode, "; "), c.node}, "client": {strings.Join(one.NotClient, "; "), c.client}} {
				if (why[0] == "") != (why[1] == "") || !strings.Contains(why[0], why[1]) {
					t.Errorf("as a %s it lacks %q, want %q", what, why[0], why[1])
				}
			}
			if len(in.Faults) != c.faults || in.Checked == c.unchecked {
				t.Errorf("checked is %v, faults are %q, want %d", in.Checked, in.Faults, c.faults)
			}
			if signed := len(one.SignedBy) == 1; signed != c.signed {
				t.Errorf("signed by %q", one.SignedBy)
			}
			if !slices.Equal(one.KeyFiles, paths[1:2]) || !slices.Equal(in.Keys[0].Fits, paths[:1]) {
				t.Errorf("its key is in %q, and fits %q", one.KeyFiles, in.Keys[0].Fits)
			}
		})
	}
}

// What inspect calls usable by a node is what a node starts with, and the other way round.
func TestInspectAgreesWithWhatANodeAccepts(t *testing.T) {
	ca, other := newCA(t, "CA"), newCA(t, "Other")
	for name, p := range map[string]Pair{
		"node": issue(t, ca, nodeID("n1")), "client": issue(t, ca, clientID("n1")), "another CA's": issue(t, other, nodeID("n1")),
		"for servers": custom(t, ca, &x509.Certificate{ExtKeyUsage: bothEnds[:1], URIs: uriOf(nodeID("n1"))}),
		"for clients": custom(t, ca, &x509.Certificate{ExtKeyUsage: bothEnds[1:], URIs: uriOf(nodeID("n1"))}),
		"for all":     custom(t, ca, &x509.Certificate{URIs: uriOf(nodeID("n1"))}),
		"for any":     custom(t, ca, &x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}, URIs: uriOf(nodeID("n1"))}),
		"no name":     custom(t, ca, &x509.Certificate{ExtKeyUsage: bothEnds}),
	} {
		f := put(t, t.TempDir(), p, ca)
		o := ofN1
		o.Clock = newClock().now
		_, err := Open(f, o)
		if in := Inspect([]string{f.Cert, f.CA}, start); (len(in.Certs[0].NotNode) == 0) != (err == nil) {
			t.Errorf("%s: inspect says %q, a node %v", name, in.Certs[0].NotNode, err)
		}
	}
}
