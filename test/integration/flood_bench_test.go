//go:build unix

package integration

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/client"
	"github.com/locknode/locknode/internal/mux"
	"github.com/locknode/locknode/internal/proof/proc"
)

const (
	flooderRole  = "flooder"
	floodTime    = 6 * time.Second
	politeLocks  = 50
	floodStreams = 8
	floodWindow  = 8192 // unanswered operations of one stream
)

// floodKinds are the operations that a flooder sends, as fast as it can.
var floodKinds = map[string]func(session []byte, i uint64) *apiv1.Operation{
	"acquires": func(session []byte, i uint64) *apiv1.Operation {
		return &apiv1.Operation{Request: &apiv1.Operation_Acquire{Acquire: &apiv1.AcquireRequest{
			Id:    &apiv1.RequestID{Session: session, Sequence: i, Acknowledged: i - min(i, floodWindow+1)},
			Locks: []*apiv1.Want{{Name: "flood/" + strconv.Itoa(int(i%4096))}},
		}}}
	},
	"unknown keep-alives": func(_ []byte, i uint64) *apiv1.Operation {
		id := make([]byte, 16)
		binary.LittleEndian.PutUint64(id, i)
		id[15] = 1
		return &apiv1.Operation{Request: &apiv1.Operation_KeepAlive{KeepAlive: &apiv1.KeepAliveRequest{Session: id}}}
	},
	"repeated keep-alives": func(session []byte, _ uint64) *apiv1.Operation {
		return &apiv1.Operation{Request: &apiv1.Operation_KeepAlive{KeepAlive: &apiv1.KeepAliveRequest{Session: session}}}
	},
	"session opens": func(_ []byte, _ uint64) *apiv1.Operation {
		id := make([]byte, 16)
		_, _ = rand.Read(id)
		return &apiv1.Operation{Request: &apiv1.Operation_OpenSession{OpenSession: &apiv1.OpenSessionRequest{Session: id, TtlNs: int64(10 * time.Second)}}}
	},
	"lists": func([]byte, uint64) *apiv1.Operation {
		return &apiv1.Operation{Request: &apiv1.Operation_List{List: &apiv1.ListRequest{Limit: 100}}}
	},
}

// flooderMain floods the node at args[0] with operations of the kind args[1] over
// streams of one connection each, until its input ends.
func flooderMain(args []string) int {
	make, window := floodKinds[args[1]], floodWindow
	var answered atomic.Int64
	for s := range floodStreams {
		cc, err := grpc.NewClient(args[0], grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			fmt.Println(err)
			return 1
		}
		stream, err := apiv1.NewLocksClient(cc).Session(context.Background())
		if err != nil {
			fmt.Println(err)
			return 1
		}
		go flood(stream, uint64(s)<<40, make, window, &answered)
	}
	_, _ = os.Stdin.Read([]byte{0})
	fmt.Println(answered.Load())
	return 0
}

func flood(stream grpc.BidiStreamingClient[apiv1.SessionRequest, apiv1.SessionResponse], base uint64, op func([]byte, uint64) *apiv1.Operation, window int, answered *atomic.Int64) {
	session := make([]byte, 16)
	_, _ = rand.Read(session)
	_ = stream.Send(&apiv1.SessionRequest{Operations: []*apiv1.Operation{{Request: &apiv1.Operation_OpenSession{
		OpenSession: &apiv1.OpenSessionRequest{Session: session, TtlNs: int64(time.Minute)},
	}}}})
	room := make(chan struct{}, window)
	go func() {
		for {
			res, err := stream.Recv()
			if err != nil {
				return
			}
			for range res.GetAnswers() {
				answered.Add(1)
				select {
				case <-room:
				default:
				}
			}
		}
	}()
	for i := uint64(1); ; {
		var ops []*apiv1.Operation
		for range 256 {
			room <- struct{}{}
			o := op(session, i)
			if o.GetAcquire() == nil {
				o = op(session, base+i)
			}
			o.Id = i
			ops = append(ops, o)
			i++
		}
		if stream.Send(&apiv1.SessionRequest{Operations: ops}) != nil {
			return
		}
	}
}

// BenchmarkKeepAliveBesideAFlood measures how a process that floods the leader affects another
// client: how long its keep-alives take, how many of its 50 locks it loses, and how often the
// leader changes.
//
//	go test ./test/integration -run xxx -bench BesideAFlood -benchtime 1x
func BenchmarkKeepAliveBesideAFlood(b *testing.B) {
	for _, kind := range append([]string{"nothing"}, sorted(floodKinds)...) {
		b.Run(kind, func(b *testing.B) {
			for b.Loop() {
				besideAFlood(b, kind)
			}
		})
	}
}

func sorted[V any](m map[string]V) (keys []string) {
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func besideAFlood(b *testing.B, kind string) {
	ctx, cancel := context.WithTimeout(b.Context(), patience)
	defer cancel()
	c, err := proc.Start(ctx, options(b.TempDir(), 3))
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	leader, err := c.Leader(ctx)
	if err != nil {
		b.Fatal(err)
	}
	polite, err := client.Dial(ctx, c.Endpoints(), client.SessionTTL(10*time.Second))
	if err != nil {
		b.Fatal(err)
	}
	defer polite.Close()
	var held []*client.Grant
	for i := range politeLocks {
		g, err := polite.Lock(ctx, fmt.Sprintf("polite/%d", i))
		if err != nil {
			b.Fatal(err)
		}
		held = append(held, g)
	}
	before, err := leader.Status(ctx)
	if err != nil {
		b.Fatal(err)
	}
	stop := func() string { return "0" }
	if kind != "nothing" {
		stop = startFlooder(b, leader.API(), kind)
	}
	took := keepAlives(ctx, b, leader.API())
	answered, _ := strconv.Atoi(stop())
	lost := 0
	for _, g := range held {
		if g.Err() != nil {
			lost++
		}
	}
	if err := c.WaitReady(ctx); err != nil {
		b.Fatal(err)
	}
	after, err := leader.Status(ctx)
	if err != nil {
		b.Fatal(err)
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
	b.ReportMetric(float64(took[len(took)-1].Microseconds())/1000, "max-ms")
	b.ReportMetric(float64(lost), "lost-locks")
	b.ReportMetric(float64(after.GetTerm()-before.GetTerm()), "elections")
	b.ReportMetric(float64(answered)/floodTime.Seconds(), "flood/s")
}

func startFlooder(b *testing.B, api, kind string) (stop func() string) {
	b.Helper()
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	var out bytes.Buffer
	h, err := proc.StartHelper(proc.HelperOptions{
		Name: flooderRole, Binary: "/usr/bin/env", Args: []string{actAs + "=" + flooderRole, self, api, kind},
		LogPath: filepath.Join(b.TempDir(), "flooder.log"), Stdout: &out,
	})
	if err != nil {
		b.Fatal(err)
	}
	time.Sleep(time.Second) // for the flood to build up
	return func() string {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := h.Finish(ctx); err != nil {
			b.Error(err)
		}
		return string(bytes.TrimSpace(out.Bytes()))
	}
}

// keepAlives keeps a session alive for a while, and returns how long each request took.
func keepAlives(ctx context.Context, b *testing.B, api string) (took []time.Duration) {
	b.Helper()
	cc, err := grpc.NewClient(api, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		b.Fatal(err)
	}
	defer cc.Close()
	conn, err := mux.Open(ctx, cc, mux.Config{})
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	id := make([]byte, 16)
	_, _ = rand.Read(id)
	op := &apiv1.Operation{Request: &apiv1.Operation_OpenSession{OpenSession: &apiv1.OpenSessionRequest{Session: id, TtlNs: int64(time.Minute)}}}
	for end := time.Now().Add(floodTime); time.Now().Before(end) || len(took) == 0; {
		began := time.Now()
		a, err := mux.Do(ctx, conn.Start, op)
		if err != nil {
			b.Fatal(err)
		}
		if e := a.GetError(); e != nil {
			b.Logf("keep-alive: %v", e)
		}
		op = &apiv1.Operation{Request: &apiv1.Operation_KeepAlive{KeepAlive: &apiv1.KeepAliveRequest{Session: id}}}
		took = append(took, time.Since(began))
		time.Sleep(20 * time.Millisecond)
	}
	return took
}
