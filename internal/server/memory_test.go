package server

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/internal/mux"
)

func testBudget(total int64) *budget {
	return newBudgets("test", Config{Limits: Limits{Memory: int(total)}, Observer: nobody{}}).out
}

func TestOneAccountLeavesHalfOfWhatIsFree(t *testing.T) {
	b := testBudget(1 << 20)
	greedy, other := b.account(nil), b.account(nil)
	taken := 0
	for greedy.take(4 << 10) {
		taken += 4 << 10
	}
	if taken < 500<<10 || taken > 600<<10 {
		t.Errorf("one account took %d of %d bytes, want half", taken, b.total)
	}
	if !other.take(200 << 10) {
		t.Error("another account was refused, with half of the budget free")
	}
	greedy.force(-taken)
	other.force(-200 << 10)
	if b.used != 0 || len(b.accounts) != 0 {
		t.Errorf("%d bytes in %d accounts are counted after all was released", b.used, len(b.accounts))
	}
}

func TestWhatIsSmallIsNeverRefused(t *testing.T) {
	b := testBudget(64 << 10)
	b.account(nil).force(100 << 10)
	for range 100 {
		if !b.account(nil).take(freeBytes) {
			t.Fatal("the first bytes of an account were refused")
		}
	}
}

func TestAnOldAccountIsCutToMakeRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		seen := &counts{Observer: nobody{}}
		b := testBudget(1 << 20)
		b.observer = seen
		var unread []*account
		for range 20 { // they leave nothing free
			a := b.account(nil)
			a.force(50 << 10)
			a.force(50 << 10)
			unread = append(unread, a)
		}
		modest := b.account(nil)
		if modest.take(100<<10) || seen.cut.Load() != 0 {
			t.Errorf("the budget is used up by new accounts: want a refusal and none cut, %d were", seen.cut.Load())
		}
		time.Sleep(3 * stuckAfter)
		brisk := b.account(nil) // holds as much, and never for long
		for range 30 {
			brisk.force(100 << 10)
			time.Sleep(stuckAfter / 10)
			brisk.force(-100 << 10)
		}
		if !modest.take(100<<10) || seen.cut.Load() == 0 || brisk.closed {
			t.Errorf("want an old account cut to make room: %d were cut, the one that reads was: %v", seen.cut.Load(), brisk.closed)
		}
		left := 0
		for _, a := range unread {
			if !a.closed {
				left++
			}
		}
		if left < 5 {
			t.Errorf("%d of 20 are left: more were cut than was necessary", left)
		}
	})
}

func TestTheLargestAccountIsCutWhereNothingIsRefused(t *testing.T) {
	b := testBudget(1 << 20)
	most, modest := b.account(nil), b.account(nil)
	modest.force(40 << 10)
	for range 30 {
		most.force(100 << 10)
	}
	if !most.closed || modest.closed || b.used > 2*b.total {
		t.Errorf("the largest is cut: %v, the other: %v, %d bytes of %d", most.closed, modest.closed, b.used, b.total)
	}
}

// bigNode answers every read with a lock whose value is six times as long in JSON.
func bigNode(bytes int) *fakeNode {
	node := newFakeNode()
	value := strings.Repeat("\x01", 4096)
	node.on = func(c *mux.Call) bool {
		if c.Op.GetGet() == nil && c.Op.GetList() == nil {
			return false
		}
		list := &apiv1.ListResponse{}
		for i := range bytes / len(value) {
			list.Locks = append(list.Locks, &apiv1.Lock{Name: fmt.Sprintf("l%04d", i), Holders: []*apiv1.Holder{{Value: []byte(value)}}})
		}
		go c.Done(&apiv1.Answer{Id: c.Op.GetId(), Result: &apiv1.Answer_List{List: list}})
		return true
	}
	return node
}

func TestUnreadHTTPAnswersAreBounded(t *testing.T) {
	node := bigNode(128 << 10)
	r := serve(t, Config{Backend: node, Limits: Limits{Memory: 4 << 20}})
	const clients = 60
	status := make(chan int, clients)
	for range clients {
		conn, err := net.Dial("tcp", r.http)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		_ = conn.(*net.TCPConn).SetReadBuffer(4 << 10)
		_, _ = fmt.Fprintf(conn, "GET /v1/locks?limit=1000 HTTP/1.1\r\nHost: localhost\r\n\r\n")
		go func() {
			line, _ := bufio.NewReaderSize(conn, 16).ReadString(' ')
			code := 0
			_, _ = fmt.Fscanf(conn, "%d", &code)
			if line == "" {
				code = -1
			}
			status <- code
		}()
	}
	for range clients {
		receiveWithin(t, "an answer", status)
	}
	if out := budgetOf(r, "http").out; out.inUse() > out.total {
		t.Errorf("%d bytes are counted, want at most %d", out.inUse(), out.total)
	} else if out.inUse() == 0 {
		t.Error("no bytes are counted")
	}
	if code, _ := post(t, r, "/v1/release", `{"name":"a","token":1}`); code != http.StatusNotFound {
		t.Errorf("a release beside them: status %d, want 404 for a lock that is not held", code)
	}
}

func (c *counter) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n
}

func (b *budget) inUse() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.used
}

func budgetOf(r *running, listener string) *limited {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range r.listeners {
		if l.name == listener {
			return l
		}
	}
	return nil
}

// rawGRPC is a client whose reads and writes the test controls.
type rawGRPC struct {
	net.Conn
	*http2.Framer
	next    uint32
	service string // whose methods are called
}

func dialRaw(t testing.TB, r *running) *rawGRPC {
	t.Helper()
	c := dialQuiet(t, r)
	go func() { // reads and discards
		for {
			if _, err := c.ReadFrame(); err != nil {
				return
			}
		}
	}()
	return c
}

// dialQuiet is dialRaw for a client that does not read.
func dialQuiet(t testing.TB, r *running) *rawGRPC {
	t.Helper()
	conn := dialTo(t, r.grpc)
	_, _ = io.WriteString(conn, http2.ClientPreface)
	c := &rawGRPC{conn, http2.NewFramer(conn, conn), 1, "/locknode.v1.Locks/"}
	_ = c.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 10})
	_ = c.WriteSettingsAck()
	return c
}

// begin opens a call of a method and returns its stream.
func (c *rawGRPC) begin(method string) (stream uint32) {
	var head bytes.Buffer
	enc := hpack.NewEncoder(&head)
	for _, f := range [][2]string{
		{":method", "POST"}, {":scheme", "http"}, {":path", c.service + method}, {":authority", "localhost"},
		{"content-type", "application/grpc"}, {"te", "trailers"},
	} {
		_ = enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
	}
	stream = c.next
	c.next += 2
	_ = c.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: head.Bytes(), EndHeaders: true})
	return stream
}

// beginMessage sends the header of a message of that many bytes, and a part of it.
func (c *rawGRPC) beginMessage(stream uint32, bytes, sent int) error {
	b := make([]byte, 5+sent)
	binary.BigEndian.PutUint32(b[1:], uint32(bytes))
	for len(b) > 0 {
		n := min(len(b), 16<<10)
		if err := c.WriteData(stream, false, b[:n]); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

func TestRequestsThatDoNotArriveAreBounded(t *testing.T) {
	seen := &counts{Observer: nobody{}}
	r := serve(t, Config{Observer: seen, Limits: Limits{Memory: 2 << 20}}) // 1 MiB for requests
	unhurt := dialRaw(t, r)
	_ = unhurt.beginMessage(unhurt.begin("Acquire"), 60<<10, 10<<10)
	c := dialRaw(t, r)
	for range 50 {
		if err := c.beginMessage(c.begin("Acquire"), 60<<10, 59<<10); err != nil {
			break
		}
	}
	r.node.await(t, "the end of the connection", func() bool { return seen.cut.Load() > 0 })
	r.node.await(t, "no bytes of requests", func() bool { return budgetOf(r, "grpc").in.inUse() == 0 })
	if err := unhurt.beginMessage(unhurt.begin("Release"), 100, 0); err != nil {
		t.Errorf("another connection: %v", err)
	}
	r.node.await(t, "one connection", func() bool { return budgetOf(r, "grpc").streams.Load() == 2 })
}

func TestFramesOfOneByteCountAsMore(t *testing.T) {
	l := &limited{budgets: newBudgets("grpc", Config{Limits: Limits{Memory: 1 << 30}, Observer: nobody{}})}
	c := &limitedConn{listener: l}
	c.in = l.in.account(c)
	f := newFrames(c)
	var b bytes.Buffer
	framer := http2.NewFramer(&b, nil)
	b.WriteString(http2.ClientPreface)
	_ = framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndHeaders: true})
	_ = framer.WriteData(1, false, []byte{0, 0, 0, 200, 0})
	for range 1000 {
		_ = framer.WriteData(1, false, []byte{0})
	}
	for _, one := range b.Bytes() { // as small as a read can be
		f.received([]byte{one})
	}
	if got := c.in.bytes; got < 1000*frameCost || f.open() != 1 {
		t.Errorf("1,000 frames count as %d bytes on %d streams, want at least %d each", got, f.open(), frameCost)
	}
	b.Reset()
	_ = http2.NewFramer(&b, nil).WriteRSTStream(1, http2.ErrCodeCancel)
	f.sent(b.Bytes())
	if c.in.bytes != 0 || f.open() != 0 || l.streams.Load() != 0 {
		t.Errorf("after its end %d bytes of %d streams are counted", c.in.bytes, f.open())
	}
}

func TestWholeMessagesDoNotCount(t *testing.T) {
	r := serve(t, Config{})
	stream := openStream(t, r)
	for i := range 50 {
		op := acquireOp(uint64(i+1), fmt.Sprintf("l%d", i), 0)
		op.GetAcquire().Value = make([]byte, 20<<10)
		sendOps(t, stream, op)
		receiveAnswers(t, stream, 1)
	}
	l := budgetOf(r, "grpc")
	r.node.await(t, "no bytes of messages that have not arrived", func() bool { // the server's part of a write follows the client's
		l.mu.Lock()
		defer l.mu.Unlock()
		left := int64(0)
		for c := range l.conns {
			c.in.mu.Lock()
			left += c.in.bytes
			c.in.mu.Unlock()
		}
		return left == 0
	})
	if l.streams.Load() != 1 || l.ops.inUse() != 0 {
		t.Errorf("%d streams, %d bytes of operations under way; want 1 and 0", l.streams.Load(), l.ops.inUse())
	}
}

func TestUnreadAnswersOfCallsAreBounded(t *testing.T) {
	node := bigNode(120 << 10)
	seen := &counts{Observer: nobody{}}
	r := serve(t, Config{Backend: node, Observer: seen, Limits: Limits{Memory: 2 << 20}})
	c := dialRaw(t, r)
	list := make([]byte, 5) // an empty ListRequest
	ask := func(n int) {
		for range n {
			if err := c.WriteData(c.begin("List"), true, list); err != nil {
				t.Fatal(err)
			}
		}
	}
	out := budgetOf(r, "grpc").out
	const few = 5 // for which there is room
	ask(few)
	node.await(t, "answers that are not read", func() bool { return seen.answered.Load() == few && r.requests.count() == 0 })
	if got := out.inUse(); got < (few-1)*100<<10 { // of one, grpc may have begun to send the bytes
		t.Errorf("%d bytes are counted for %d answers of 120 KiB that grpc has not sent", got, few)
	}
	ask(100 - few)
	node.await(t, "refusals", func() bool { return r.requests.count() == 0 && out.inUse() > 0 })
	if got := out.inUse(); got > out.total {
		t.Errorf("%d bytes are counted for answers that were not read; want at most %d", got, out.total)
	}
	if _, err := r.client(t).Release(t.Context(), &apiv1.ReleaseRequest{Name: "a", Token: 1}); apiv1.CodeOf(err) != apiv1.CodeNotHeld {
		t.Errorf("a release beside them: %v", err)
	}
	for id := uint32(1); id < c.next; id += 2 {
		_ = c.WriteRSTStream(id, http2.ErrCodeCancel)
	}
	node.await(t, "no bytes of calls that were given up", func() bool { return out.inUse() == 0 })
}

func TestMessageOfTinyPartsIsNotDecoded(t *testing.T) {
	r := serve(t, Config{})
	empty := &apiv1.BatchRequest{}
	for range 500_000 {
		empty.Operations = append(empty.Operations, &apiv1.Operation{})
	}
	_, err := r.client(t).Batch(t.Context(), empty)
	if status.Code(err) != codes.Internal || !strings.Contains(err.Error(), "parts") {
		t.Errorf("a batch of 500,000 empty operations: %v, want an error about too many parts", err)
	}
}

func TestLongOperationsUnderWayAreBounded(t *testing.T) {
	r := serve(t, Config{Limits: Limits{Memory: 1 << 20}})
	stream := openStream(t, r)
	sendOps(t, stream, acquireOp(1, "a", 0))
	receiveAnswers(t, stream, 1)
	const n = 100
	for i := range n {
		op := inSession(acquireOp(uint64(100+i), "a", -1), uint64(i+1))
		op.GetAcquire().Value = make([]byte, 30<<10)
		sendOps(t, stream, op)
	}
	sendOps(t, stream, &apiv1.Operation{Id: 7, Request: &apiv1.Operation_Cancel{Cancel: &apiv1.CancelRequest{}}})
	refused := 0
	for cancelled := false; !cancelled; {
		for _, a := range receiveAnswers(t, stream, 1) {
			switch {
			case a.GetId() == 7:
				cancelled = a.GetError() == nil
				if !cancelled {
					t.Fatalf("an operation that frees was refused: %v", a)
				}
			case apiv1.Code(a.GetError().GetCode()) != apiv1.CodeOverloaded:
				t.Fatalf("answer %v, want overloaded", a)
			default:
				refused++
			}
		}
	}
	if refused < n/2 || refused == n {
		t.Errorf("%d of %d acquires of 30 KiB were refused, with a budget of half a MiB", refused, n)
	}
}

func TestManyHeadersAreRefused(t *testing.T) {
	r := serve(t, Config{})
	conn, err := net.Dial("tcp", r.http)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	var head strings.Builder
	for i := range 500 {
		fmt.Fprintf(&head, "%x:\r\n", i)
	}
	_, _ = fmt.Fprintf(conn, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n%s\r\n", head.String())
	line, _ := bufio.NewReader(conn).ReadString('\n')
	if !strings.Contains(line, "431") {
		t.Errorf("500 header lines: %q, want 431", line)
	}
}
