//go:build unix

package integration

import (
	"bufio"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/internal/mux"
)

// A faulty or hostile client, in a process of its own: it requests more than a cluster can
// serve, until its input ends.

const strangerRole = "stranger"

// kindsOfFlood are its floods, by name, each with how much of it is done at once.
var kindsOfFlood = map[string]func(*stranger){
	"acquires": func(f *stranger) {
		f.streams(8, func(n uint64) *apiv1.Operation {
			return &apiv1.Operation{Request: &apiv1.Operation_Acquire{Acquire: &apiv1.AcquireRequest{
				Locks: []*apiv1.Want{{Name: fmt.Sprintf("flood/%d", n%20_000)}}, TtlNs: int64(2 * time.Second), Holder: strangerRole,
			}}}
		})
	},
	"unknown keep-alives": func(f *stranger) {
		f.streams(16, func(uint64) *apiv1.Operation {
			return &apiv1.Operation{Request: &apiv1.Operation_KeepAlive{KeepAlive: &apiv1.KeepAliveRequest{Session: randomSession()}}}
		})
	},
	"session opens": func(f *stranger) {
		f.streams(8, func(uint64) *apiv1.Operation {
			return &apiv1.Operation{Request: &apiv1.Operation_OpenSession{OpenSession: &apiv1.OpenSessionRequest{
				Session: randomSession(), TtlNs: int64(5 * time.Second), Holder: strangerRole,
			}}}
		})
	},
	"linearizable lists": func(f *stranger) {
		f.streams(8, func(uint64) *apiv1.Operation {
			return &apiv1.Operation{Request: &apiv1.Operation_List{List: &apiv1.ListRequest{Limit: 1000}}}
		})
	},
	"idle connections": func(f *stranger) { f.connections(700, func(net.Conn) {}) },
	"unread answers": func(f *stranger) {
		f.connections(300, func(c net.Conn) {
			if tcp, ok := c.(*net.TCPConn); ok {
				_ = tcp.SetReadBuffer(64 << 10) // otherwise it accepts megabytes before it is full
			}
			for range 20 { // the answers to more than one of them do not fit the system's buffers
				_, _ = io.WriteString(c, "GET /v1/locks?limit=1000&stale=1m HTTP/1.1\r\nHost: localhost\r\n\r\n")
			}
		})
	},
}

// strangerMain is the process: it runs the flood args[0] against the nodes whose API and HTTP
// addresses are args[1] and args[2], prints "begun", and at its end how much it did.
func strangerMain(args []string) int {
	f := &stranger{api: strings.Split(args[1], ","), http: strings.Split(args[2], ",")}
	ctx, cancel := context.WithCancel(context.Background())
	f.ctx = ctx
	fmt.Println("begun")
	go func() {
		_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
		cancel()
	}()
	kindsOfFlood[args[0]](f)
	f.mu.Lock()
	defer f.mu.Unlock()
	fmt.Printf("%d answers, of them %d refusals; %d connections opened\n", f.answers, f.refusals, f.opened)
	return 0
}

type stranger struct {
	ctx       context.Context
	api, http []string

	mu                        sync.Mutex // guards what follows
	answers, refusals, opened int
}

func randomSession() []byte {
	id := make([]byte, 16)
	_, _ = rand.Read(id) // never fails
	return id
}

// streams keeps many operations under way on each of n streams.
func (f *stranger) streams(n int, op func(n uint64) *apiv1.Operation) {
	const atOnce = 256
	var wg sync.WaitGroup
	for i := range n {
		cc, err := grpc.NewClient(f.api[i%len(f.api)], grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			continue
		}
		defer func() { _ = cc.Close() }()
		wg.Go(func() {
			for f.ctx.Err() == nil {
				conn, err := mux.Open(f.ctx, cc, mux.Config{})
				if err != nil {
					continue
				}
				f.fill(conn, atOnce, uint64(i)<<32, op)
				conn.Close()
			}
		})
	}
	wg.Wait()
}

// fill uses one stream until it breaks.
func (f *stranger) fill(conn *mux.Conn, atOnce int, first uint64, op func(n uint64) *apiv1.Operation) {
	places := make(chan struct{}, atOnce)
	for n := first; f.ctx.Err() == nil; n++ {
		select {
		case places <- struct{}{}:
		case <-f.ctx.Done():
			return
		case <-time.After(5 * time.Second):
			return
		}
		conn.Start(&mux.Call{Op: op(n), Done: func(a *apiv1.Answer) {
			f.mu.Lock()
			f.answers++
			if a.GetError() != nil {
				f.refusals++
			}
			f.mu.Unlock()
			<-places
		}})
	}
}

// connections keeps n of them open to each node's API and HTTP ports, and reads nothing from
// them.
func (f *stranger) connections(n int, use func(net.Conn)) {
	var wg sync.WaitGroup
	for _, address := range append(append([]string(nil), f.api...), f.http...) {
		wg.Go(func() {
			var open []net.Conn
			for f.ctx.Err() == nil {
				c, err := net.DialTimeout("tcp", address, time.Second)
				if err != nil {
					time.Sleep(10 * time.Millisecond)
					continue
				}
				use(c)
				open = append(open, c)
				f.mu.Lock()
				f.opened++
				f.mu.Unlock()
				if len(open) >= n { // the oldest may be closed by now: another one
					_ = open[0].Close()
					open = open[1:]
					time.Sleep(10 * time.Millisecond)
				}
			}
			for _, c := range open {
				_ = c.Close()
			}
		})
	}
	wg.Wait()
}
