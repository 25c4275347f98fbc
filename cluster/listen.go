package cluster

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/memberlist"
)

// Listener is gossip's address, bound and not used yet. A node binds all its addresses
// before it changes anything on disk, because binding may fail.
type Listener struct {
	transport *memberlist.NetTransport
	ip        string
}

// Listen binds host:port, TCP and UDP. Port 0 takes a free one. The listener is to be
// given to Start, or closed.
func Listen(bind string, log *slog.Logger) (*Listener, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	ip, port, err := resolveOne(context.Background(), bind, net.DefaultResolver.LookupHost)
	if err != nil {
		return nil, fmt.Errorf("listen for gossip: %w", err)
	}
	t, err := listen(ip, port, newWarner(log))
	if err != nil {
		return nil, err
	}
	return &Listener{transport: t, ip: ip}, nil
}

// Close releases the address, where Start is not called.
func (l *Listener) Close() error {
	newGate(l.transport, true, func(net.Addr, error) {}, nil).abandon()
	return nil
}

// listenTries is how often Listen tries a free port: the kernel picks one for TCP, and the
// same port has to be free for UDP.
const listenTries = 10

// listen binds TCP and UDP on one port.
func listen(ip string, port int, warn *warner) (*memberlist.NetTransport, error) {
	for try := 1; ; try++ {
		t, err := memberlist.NewNetTransport(&memberlist.NetTransportConfig{
			BindAddrs: []string{ip}, BindPort: port, Logger: memberlistLogger(warn),
		})
		if err == nil {
			return t, nil
		}
		if port != 0 || try == listenTries || !strings.Contains(err.Error(), "address already in use") {
			return nil, fmt.Errorf("listen for gossip on %s: %w", net.JoinHostPort(ip, fmt.Sprint(port)), err)
		}
	}
}

// resolveLimit is for one look-up.
const resolveLimit = 5 * time.Second

// resolveOne turns host:port into one IP address and a port, as memberlist
// wants it for binding and advertising. No host means every interface.
func resolveOne(ctx context.Context, hostport string, lookup func(context.Context, string) ([]string, error)) (ip string, port int, err error) {
	host, p, err := net.SplitHostPort(hostport)
	if err != nil {
		host, p = hostport, "0"
	}
	if port, err = strconv.Atoi(p); err != nil || port < 0 || port > 65535 {
		return "", 0, fmt.Errorf("port of %q: is %q, must be 0 to 65535", hostport, p)
	}
	if host == "" {
		return "0.0.0.0", port, nil
	}
	if net.ParseIP(host) != nil {
		return host, port, nil
	}
	ctx, cancel := context.WithTimeout(ctx, resolveLimit)
	defer cancel()
	addrs, err := lookup(ctx, host)
	if err != nil {
		return "", 0, fmt.Errorf("%q: %w", hostport, err)
	}
	for _, a := range addrs { // IPv4 first: that is what "localhost" peers use
		if parsed := net.ParseIP(a); parsed != nil && parsed.To4() != nil {
			return a, port, nil
		}
	}
	if len(addrs) == 0 {
		return "", 0, fmt.Errorf("%q: no address", hostport)
	}
	return addrs[0], port, nil
}
