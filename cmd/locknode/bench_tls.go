//go:build unix

package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"google.golang.org/grpc/credentials"

	"github.com/locknode/locknode/client"
	testca "github.com/locknode/locknode/internal/proof/pki"
	"github.com/locknode/locknode/internal/proof/proc"
)

// benchCluster is a cluster that bench has started.
type benchCluster struct {
	*proc.Cluster
	security []client.Option // of its clients; none in plain text
	remove   func() error    // removes its certificates
}

func (c *benchCluster) close() error { return errors.Join(c.Close(), c.remove()) }

// startBenchCluster starts a cluster in plain text, or one that requires TLS.
func startBenchCluster(ctx context.Context, o benchOptions, inTLS bool) (*benchCluster, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	b := &benchCluster{remove: func() error { return nil }}
	options := proc.Options{Nodes: o.nodes, Dir: o.data, Args: []string{"--log-store", o.logStore}}
	if inTLS {
		if err := b.secure(&options); err != nil {
			return nil, errors.Join(err, b.remove())
		}
	}
	var err error
	if b.Cluster, err = proc.Start(ctx, options); err != nil {
		return nil, errors.Join(err, b.remove())
	}
	if _, err := b.Leader(ctx); err != nil {
		return nil, errors.Join(err, b.close())
	}
	return b, nil
}

// secure gives each node a certificate, and the clients the CA.
func (c *benchCluster) secure(o *proc.Options) error {
	dir, err := os.MkdirTemp("", "locknode-bench-tls-")
	if err != nil {
		return err
	}
	c.remove = func() error { return os.RemoveAll(dir) }
	ca, err := testca.New(dir, "")
	if err != nil {
		return err
	}
	pem, err := os.ReadFile(ca.CAFile())
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	o.Prepare = func(n *proc.Node) error {
		cert, key, err := ca.Node(n.ID)
		if err != nil {
			return err
		}
		n.Secure(credentials.NewTLS(&tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13}))
		n.AddArgs("--tls.mode", "required", "--tls.ca-file", ca.CAFile(), "--tls.cert-file", cert, "--tls.key-file", key)
		return nil
	}
	c.security = []client.Option{client.TLSFiles(ca.CAFile(), "", "")}
	return nil
}

// pairJSON is one pair of measurements, of clusters that differ in TLS alone.
type pairJSON struct {
	Plain benchJSON `json:"plain"`
	TLS   benchJSON `json:"tls"`
	Ratio float64   `json:"ratio"` // of the operations per second, TLS to plain text
}

type pairsJSON struct {
	Pairs       []pairJSON `json:"pairs"`
	MedianRatio float64    `json:"median_ratio"`
}

// benchPairs measures a cluster in plain text and one in TLS, which run side by side, in turns: what
// else the machine does meets both alike.
func (a *app) benchPairs(ctx context.Context, o benchOptions, w workload) (err error) {
	var sides [2]*bench // in plain text, in TLS
	for i := range sides {
		cluster, startErr := startBenchCluster(ctx, o, i == 1)
		if startErr != nil {
			return startErr
		}
		defer func() { err = errors.Join(err, cluster.close()) }()
		b := &bench{benchOptions: o, load: w, security: slices.Clip(cluster.security)}
		b.endpoints = cluster.Endpoints()
		defer b.close()
		if err := b.begin(ctx); err != nil {
			return err
		}
		sides[i] = b
	}
	out := pairsJSON{Pairs: []pairJSON{}}
	var ratios []float64
	for pair := range o.pairs {
		var got [2]benchJSON
		for turn := range sides {
			i := (turn + pair) % len(sides) // neither is always the first
			r, err := sides[i].run(ctx, nil)
			if err != nil {
				return err
			}
			if r.firstErr != nil {
				a.say("%d of the %s failed; the first: %v", r.errors, w.unit, r.firstErr)
			}
			got[i] = r.summary(sides[i])
		}
		if got[0].OpsPerSecond == 0 || got[1].OpsPerSecond == 0 {
			return fmt.Errorf("bench: no %s were finished within --duration %v", w.unit, o.duration)
		}
		p := pairJSON{Plain: got[0], TLS: got[1], Ratio: got[1].OpsPerSecond / got[0].OpsPerSecond}
		out.Pairs, ratios = append(out.Pairs, p), append(ratios, p.Ratio)
		if !a.json {
			if err := a.printf("pair %d  plain text %.0f %s/s, p99 %.2f ms  TLS %.0f %s/s, p99 %.2f ms  TLS is at %.1f %%\n", pair+1,
				p.Plain.OpsPerSecond, w.unit, p.Plain.LatencyMS.P99, p.TLS.OpsPerSecond, w.unit, p.TLS.LatencyMS.P99, 100*p.Ratio); err != nil {
				return err
			}
		}
	}
	slices.Sort(ratios)
	out.MedianRatio = ratios[len(ratios)/2]
	if a.json {
		return a.printJSON(out)
	}
	return a.printf("%s, %d workers, %s of %v: TLS is at %.1f %% of plain text (median)\n", w.name, o.workers, counted(o.pairs, "pair"), o.duration, 100*out.MedianRatio)
}
