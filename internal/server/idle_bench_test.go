package server

import (
	"encoding/binary"
	"fmt"
	"io"
	"runtime"
	"runtime/metrics"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	apiv1 "github.com/locknode/locknode/api/v1"
)

// idlePeriod is longer than the time after which grpc pings a silent connection.
const idlePeriod = 16 * time.Second

// BenchmarkIdle measures what idle clients, and almost idle ones, cost the server: bytes of
// memory, and how often a goroutine is woken in a second. The clients are bare connections
// in the same process, which cost almost nothing. docs/operations.md has the table; run it
// with -benchtime=1x.
func BenchmarkIdle(b *testing.B) {
	for _, c := range []struct {
		name  string
		n     int
		begin func(b *testing.B, r *running, i int) (each func())
	}{
		{"TCP connection to gRPC", 500, func(b *testing.B, r *running, _ int) func() { dialTo(b, r.grpc); return nil }},
		{"TCP connection to HTTP", 500, func(b *testing.B, r *running, _ int) func() { dialTo(b, r.http); return nil }},
		{"gRPC connection", 500, func(b *testing.B, r *running, _ int) func() { dialQuiet(b, r); return nil }},
		{"Session stream", 500, func(b *testing.B, r *running, _ int) func() { dialQuiet(b, r).begin("Session"); return nil }},
		{"Session stream with a keep-alive every 3 s", 500, func(b *testing.B, r *running, i int) func() {
			conn := dialQuiet(b, r)
			stream := conn.begin("Session")
			var id [16]byte
			binary.BigEndian.PutUint64(id[:], uint64(i))
			return func() { conn.message(b, stream, keepAliveOp(1, id)) }
		}},
		{"HTTP connection kept alive", 500, func(b *testing.B, r *running, _ int) func() {
			_, _ = io.WriteString(dialTo(b, r.http), "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
			return nil
		}},
		{"HTTP acquire that waits", 500, func(b *testing.B, r *running, _ int) func() {
			body := `{"name":"a","wait":"1h"}`
			_, _ = fmt.Fprintf(dialTo(b, r.http), "POST /v1/acquire HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
			return nil
		}},
		{"acquire that waits on a Session stream", 20_000, nil},
		{"watcher of health", 500, func(b *testing.B, r *running, _ int) func() {
			conn := dialQuiet(b, r)
			conn.service = "/grpc.health.v1.Health/"
			_ = conn.WriteData(conn.begin("Watch"), true, make([]byte, 5))
			return nil
		}},
	} {
		b.Run(strings.ReplaceAll(c.name, " ", "_"), func(b *testing.B) {
			for range b.N {
				r := serve(b, Config{})
				before := memoryInUse()
				var all []func()
				if c.begin == nil {
					manyWaiters(b, r, c.n)
				}
				for i := 0; c.begin != nil && i < c.n; i++ {
					if each := c.begin(b, r, i); each != nil {
						all = append(all, each)
					}
				}
				time.Sleep(500 * time.Millisecond)
				after := memoryInUse()
				woken := scheduled()
				for end := time.Now().Add(idlePeriod); time.Now().Before(end); time.Sleep(3 * time.Second) {
					for _, each := range all {
						each()
					}
				}
				b.ReportMetric(float64(after-before)/float64(c.n), "bytes/each")
				b.ReportMetric(float64(scheduled()-woken)/float64(c.n)/idlePeriod.Seconds(), "wake-ups/s/each")
				b.ReportMetric(0, "ns/op")
			}
		})
	}
}

// manyWaiters queues n acquires on one stream.
func manyWaiters(b *testing.B, r *running, n int) {
	conn := dialQuiet(b, r)
	stream := conn.begin("Session")
	for i := range n {
		conn.message(b, stream, inSession(acquireOp(uint64(i+1), "a", -1), uint64(i+1)))
	}
	r.node.await(b, "waiters", func() bool { return len(r.node.queues["a"]) >= n-1 })
}

// message sends one operation on a Session stream.
func (c *rawGRPC) message(b *testing.B, stream uint32, op *apiv1.Operation) {
	m, err := proto.Marshal(&apiv1.SessionRequest{Operations: []*apiv1.Operation{op}})
	if err != nil {
		b.Fatal(err)
	}
	framed := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(m)))
	if err := c.WriteData(stream, false, append(framed, m...)); err != nil {
		b.Fatal(err)
	}
}

// memoryInUse returns the bytes that the process has in use, with stacks.
func memoryInUse() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}

// scheduled returns about how often a goroutine was woken so far: the runtime samples every
// eighth time.
func scheduled() (times uint64) {
	sample := []metrics.Sample{{Name: "/sched/latencies:seconds"}}
	metrics.Read(sample)
	for _, n := range sample[0].Value.Float64Histogram().Counts {
		times += 8 * n
	}
	return times
}
