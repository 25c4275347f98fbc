package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/locknode/locknode/internal/certs"
	"github.com/locknode/locknode/node"
)

// portsPerBlock is the distance between the ports of two development nodes.
const portsPerBlock = 10

type devOptions struct {
	listen, data string
	nodes        int
	verbose      bool
	tls, auth    bool
}

func (a *app) devCommand() *cobra.Command {
	var o devOptions
	c := &cobra.Command{
		Use:     "dev",
		Short:   "run a development cluster on this machine",
		GroupID: groupNode,
		Long: `Dev runs three real nodes in one process on loopback, with times short enough to
be ready in about half a second. It prints their addresses and some commands to
try, and a line that begins with "ready" once the cluster accepts writes. Ctrl-C
stops it.

Each node has a block of ten ports, of which the first four are in use: gRPC API, HTTP,
Raft and gossip. Without --data the cluster is removed when it stops; with --data the
next start finds its locks again.

With --tls all ports take only TLS. Dev makes a CA and certificates in the directory tls
of the data at each start, and prints how to use them.

With --auth the nodes require rights. Dev makes an access token with all rights in the file
root.token of the data, and prints how to use it. Files of policies: "locknode policy".`,
		Example: `  locknode dev
  locknode dev --tls --auth
  locknode dev --data ./locknode-data
  locknode dev --listen 127.0.0.1:9400 --nodes 5`,
		Args: arguments(0, 0, ""),
		RunE: func(c *cobra.Command, _ []string) error { return a.dev(c.Context(), o) },
	}
	c.Flags().StringVar(&o.listen, "listen", defaultEndpoints[0], "first address of the first node; the ports of each further node are ten higher")
	c.Flags().StringVar(&o.data, "data", "", "directory of the nodes' data (default: a temporary one)")
	c.Flags().IntVar(&o.nodes, "nodes", 3, "number of nodes, 1 to 9")
	c.Flags().BoolVar(&o.tls, "tls", false, "require TLS, with certificates that are made for this run")
	c.Flags().BoolVar(&o.auth, "auth", false, "require rights, with an access token that has all of them")
	c.Flags().BoolVarP(&o.verbose, "verbose", "v", false, "write the nodes' log to standard error")
	return c
}

// devCluster is the nodes of a development cluster, all in this process.
type devCluster struct {
	dir       string
	temporary bool
	ca        string // file with the certificate of the CA; empty: there is no TLS
	token     string // file with the access token; empty: rights are not required
	nodes     []*node.Node
}

func (a *app) dev(ctx context.Context, o devOptions) (err error) {
	dumpOnQuit()
	started := time.Now()
	d, err := a.openDev(ctx, o)
	if err != nil {
		return hinted(fmt.Errorf("start development cluster: %w", err), "if a port is in use, choose others: --listen 127.0.0.1:9400")
	}
	defer func() { err = errors.Join(err, d.close()) }()
	if err := d.waitReady(ctx); err != nil {
		if ctx.Err() != nil {
			return nil // interrupted before it was ready
		}
		return err
	}
	if o.auth {
		if d.token, err = d.rootToken(ctx); err != nil {
			return err
		}
	}
	if err := a.printDev(ctx, d, time.Since(started)); err != nil {
		return err
	}
	ended := make(chan error, len(d.nodes))
	for i, n := range d.nodes {
		go func() {
			<-n.Done()
			ended <- fmt.Errorf("node n%d stopped by itself: %w", i+1, n.Err())
		}()
	}
	select {
	case <-ctx.Done():
		fmt.Fprintln(a.stderr, "stopping")
		return nil
	case err := <-ended:
		return err
	}
}

func (a *app) openDev(ctx context.Context, o devOptions) (*devCluster, error) {
	configs, err := devConfigs(o)
	if err != nil {
		return nil, err
	}
	d := &devCluster{dir: o.data}
	if d.dir == "" {
		if d.dir, err = os.MkdirTemp("", "locknode-dev-"); err != nil {
			return nil, err
		}
		d.temporary = true
	}
	if o.tls {
		if d.ca, err = devCertificates(filepath.Join(d.dir, "tls"), configs); err != nil {
			return nil, errors.Join(err, d.close())
		}
	}
	for _, cfg := range configs {
		cfg.DataDir = filepath.Join(d.dir, cfg.ID)
		if o.auth {
			cfg.Auth.Mode = "required"
		}
		if o.verbose {
			cfg.Logger = newLogger(a.stderr, slog.LevelInfo, "text")
		}
		n, err := openNode(ctx, cfg)
		if err != nil {
			return nil, errors.Join(err, d.close())
		}
		d.nodes = append(d.nodes, n)
	}
	return d, nil
}

// devConfigs returns the configurations of the nodes. Each has the gossip addresses of all
// others.
func devConfigs(o devOptions) ([]node.Config, error) {
	host, portText, err := net.SplitHostPort(o.listen)
	if err != nil {
		return nil, usageError("--listen: is %q, must be host:port, such as %s", o.listen, defaultEndpoints[0])
	}
	if o.nodes < 1 || o.nodes > 9 {
		return nil, usageError("--nodes: is %d, must be 1 to 9", o.nodes)
	}
	port, err := strconv.Atoi(portText)
	if last := port + portsPerBlock*(o.nodes-1) + 3; err != nil || port < 1 || last > 65535 {
		return nil, usageError("--listen: is %q, must have a port from 1 to %d", o.listen, 65535-portsPerBlock*(o.nodes-1)-3)
	}
	at := func(i, offset int) string { return net.JoinHostPort(host, strconv.Itoa(port+portsPerBlock*i+offset)) }
	configs := make([]node.Config, o.nodes)
	for i := range configs {
		configs[i] = node.Config{
			ID: "n" + strconv.Itoa(i+1), Listen: at(i, 0),
			BootstrapExpect: o.nodes, Fast: true, Version: readBuildInfo().Version,
		}
		for j := range configs {
			if j != i {
				configs[i].Join = append(configs[i].Join, at(j, 3))
			}
		}
	}
	return configs, nil
}

// devCertificates makes a CA and the certificates of the nodes, has the nodes require TLS with
// them, and returns the file with the CA's certificate. The CA's key is kept nowhere.
func devCertificates(dir string, configs []node.Config) (caFile string, err error) {
	const lifetime = 365 * 24 * time.Hour
	if dir, err = filepath.Abs(dir); err != nil {
		return "", err
	}
	now := time.Now()
	ca, err := certs.NewCA("locknode dev", 2*lifetime, now)
	if err != nil {
		return "", err
	}
	pair, err := ca.Pair()
	if err != nil {
		return "", err
	}
	caFile = filepath.Join(dir, caCertFile)
	files := []certs.File{{Path: caFile, Data: pair.Cert, Mode: certs.ModeCert}}
	for i := range configs {
		c := &configs[i]
		host, _, _ := net.SplitHostPort(c.Listen) // devConfigs has made it
		pair, err := ca.Issue(certs.Request{
			Identity: certs.Identity{Role: certs.Node, Name: c.ID}, Hosts: hostsOfDev(host),
			Lifetime: lifetime, Now: now,
		})
		if err != nil {
			return "", err
		}
		c.TLS = node.TLS{Mode: "required", CAFile: caFile, CertFile: filepath.Join(dir, c.ID+".crt"), KeyFile: filepath.Join(dir, c.ID+".key")}
		files = append(files, certs.File{Path: c.TLS.KeyFile, Data: pair.Key, Mode: certs.ModeKey}, certs.File{Path: c.TLS.CertFile, Data: pair.Cert, Mode: certs.ModeCert})
	}
	return caFile, certs.WriteFiles(true, files...)
}

// hostsOfDev are the names of a node on this machine.
func hostsOfDev(host string) []string {
	hosts := []string{"localhost", "127.0.0.1", "::1"}
	if host != "" && !slices.Contains(hosts, host) {
		hosts = append(hosts, host)
	}
	return hosts
}

func (d *devCluster) waitReady(ctx context.Context) error {
	for _, n := range d.nodes {
		if err := n.WaitReady(ctx); err != nil {
			return err
		}
	}
	return nil
}

// close stops all nodes at the same time, so that none hands leadership to one that stops
// next.
func (d *devCluster) close() error {
	errs := make([]error, len(d.nodes)+1)
	var wg sync.WaitGroup
	for i, n := range d.nodes {
		wg.Go(func() { errs[i] = n.Close() })
	}
	wg.Wait()
	if d.temporary {
		errs[len(d.nodes)] = os.RemoveAll(d.dir)
	}
	return errors.Join(errs...)
}

// devJSON is printed by dev -o json, in one line, when the cluster is ready.
type devJSON struct {
	Ready  bool          `json:"ready"`
	Leader string        `json:"leader"`
	Data   string        `json:"data"`
	TLSCA  string        `json:"tls_ca,omitempty"`     // file with the CA of the nodes, with --tls
	Token  string        `json:"token_file,omitempty"` // file with an access token that has all rights, with --auth
	Nodes  []devNodeJSON `json:"nodes"`
}

type devNodeJSON struct {
	ID   string `json:"id"`
	API  string `json:"api"`
	HTTP string `json:"http"`
}

func (a *app) printDev(ctx context.Context, d *devCluster, took time.Duration) error {
	out := devJSON{Ready: true, Data: d.dir, TLSCA: d.ca, Token: d.token}
	for _, n := range d.nodes {
		out.Leader = n.Status().LeaderID
		out.Nodes = append(out.Nodes, devNodeJSON{n.ID(), n.APIAddr(), n.HTTPAddr()})
	}
	if a.json {
		return a.printJSON(out)
	}
	return a.printf("%sready after %.1f s, Ctrl-C stops it\n", out.text(d.temporary), took.Seconds())
}

func (d devJSON) text(temporary bool) string {
	var b strings.Builder
	fate := "kept for the next start"
	if temporary {
		fate = "removed at the end; to keep it, give --data"
	}
	fmt.Fprintf(&b, "%d nodes in %s (%s)\n\n", len(d.Nodes), d.Data, fate)
	var endpoints []string
	for _, n := range d.Nodes {
		role := ""
		if n.ID == d.Leader {
			role = "  leads"
		}
		fmt.Fprintf(&b, "  %s  API %s  HTTP %s%s\n", n.ID, n.API, n.HTTP, role)
		endpoints = append(endpoints, n.API)
	}
	flag := ""
	if !isDefaultEndpoints(endpoints) {
		flag = " --endpoints " + strings.Join(endpoints, ",")
	}
	fmt.Fprintf(&b, "\nto try in another shell:\n\n")
	curl := "curl http://"
	if d.TLSCA != "" {
		fmt.Fprintf(&b, "  export LOCKNODE_TLS_CA=%s\n", d.TLSCA)
		curl = "curl --cacert " + d.TLSCA + " https://"
	}
	if d.Token != "" {
		fmt.Fprintf(&b, "  export LOCKNODE_TOKEN_FILE=%s\n", d.Token)
		// Not as an argument: others could see it in the list of processes.
		curl = "printf 'Authorization: Bearer %s' \"$(cat " + d.Token + ")\" | " + strings.Replace(curl, "curl", "curl -H @-", 1)
	}
	fmt.Fprintf(&b, "  locknode acquire orders/42 --ttl 30s --holder alice%s\n", flag)
	fmt.Fprintf(&b, "  %s%s/v1/locks/orders/42\n", curl, d.Nodes[len(d.Nodes)-1].HTTP)
	fmt.Fprintf(&b, "  locknode run nightly%s -- sh -c 'echo token $LOCKNODE_FENCING_TOKEN; sleep 5'\n\n", flag)
	return b.String()
}

// isDefaultEndpoints reports whether one of them is a default of --endpoints, so that
// commands find the cluster without the flag.
func isDefaultEndpoints(endpoints []string) bool {
	for _, e := range endpoints {
		for _, d := range defaultEndpoints {
			if e == d {
				return true
			}
		}
	}
	return false
}
