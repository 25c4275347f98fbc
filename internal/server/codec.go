package server

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	protocodec "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/tap"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	apiv1 "github.com/locknode/locknode/api/v1"
)

// codec is grpc's own codec, and counts answers that are not sent: the bytes of an answer
// are in the account of its connection until grpc gives their buffer back. It also refuses
// messages of many tiny parts before decoding them, because a part of two bytes takes a
// hundred bytes once it is decoded.
type codec struct{ encoding.CodecV2 }

func newCodec() codec { return codec{encoding.GetCodecV2(protocodec.Name)} }

const (
	// maxParts is how many messages may be in a message: forty for each operation of the
	// longest message of a stream.
	maxParts = 40 * 512
	// fewBytes is the least length of a message with so many parts.
	fewBytes = 2 * maxParts
)

// owned is an answer, and the account in which it is counted.
type owned struct {
	message any
	account *account
}

// Marshal encodes v. An owned answer is counted until grpc gives the buffer back.
func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	o, ok := v.(owned)
	if !ok {
		return c.CodecV2.Marshal(v)
	}
	m, ok := o.message.(proto.Message)
	if !ok {
		return nil, fmt.Errorf("encode answer: is %T, must be a proto.Message", o.message)
	}
	size := proto.Size(m)
	lent := &loan{account: o.account}
	buf := lent.get(size)
	encoded, err := proto.MarshalOptions{UseCachedSize: true}.MarshalAppend((*buf)[:0], m)
	if err != nil {
		lent.Put(buf)
		return nil, err
	}
	*buf = encoded
	return mem.BufferSlice{mem.NewBuffer(buf, lent)}, nil
}

// loan is the memory of an answer until it is sent. To grpc it is a pool of one buffer.
type loan struct {
	account *account
	bytes   int
	small   bool // from smallBuffers
	long    bool // from no pool
}

// smallBuffers are for the usual answers. grpc gives back only buffers longer than 1 KiB.
var smallBuffers = sync.Pool{New: func() any { b := make([]byte, smallBuffer); return &b }}

const smallBuffer = 1<<10 + 256

// longBuffer is the longest buffer taken from grpc's pool: the next longer ones there have
// a megabyte.
const longBuffer = 32 << 10

func (l *loan) get(size int) (buf *[]byte) {
	l.small, l.long = size <= smallBuffer, size > longBuffer
	switch {
	case l.small:
		buf = smallBuffers.Get().(*[]byte)
	case l.long:
		b := make([]byte, size)
		buf = &b
	default:
		buf = mem.DefaultBufferPool().Get(size)
	}
	l.bytes = cap(*buf)
	l.account.force(l.bytes)
	return buf
}

// Get is never called: the pool has one buffer, which get has returned.
func (l *loan) Get(int) *[]byte { panic("loan: Get was called, must be Put only") }

// Put takes the buffer back.
func (l *loan) Put(buf *[]byte) {
	l.account.force(-l.bytes)
	switch {
	case l.small:
		*buf = (*buf)[:cap(*buf)]
		smallBuffers.Put(buf)
	case !l.long:
		mem.DefaultBufferPool().Put(buf)
	}
}

// Unmarshal decodes data. It refuses messages of more than maxParts parts.
func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	m, ok := v.(proto.Message)
	if !ok || data.Len() < fewBytes {
		return c.CodecV2.Unmarshal(data, v)
	}
	buf := data.MaterializeToBuffer(mem.DefaultBufferPool())
	defer buf.Free()
	left := maxParts
	if countParts(m.ProtoReflect().Descriptor(), buf.ReadOnlyData(), &left); left < 0 {
		return fmt.Errorf("message: has too many parts in its %d bytes, must have at most %d", data.Len(), maxParts)
	}
	return proto.Unmarshal(buf.ReadOnlyData(), m)
}

// countParts subtracts from left the messages and list elements in b, a message of type d,
// until left is below zero.
func countParts(d protoreflect.MessageDescriptor, b []byte, left *int) {
	fields := d.Fields()
	for len(b) > 0 && *left >= 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return // decoding returns the error
		}
		b = b[n:]
		if n = protowire.ConsumeFieldValue(number, kind, b); n < 0 {
			return
		}
		if f := fields.ByNumber(number); f != nil && kind == protowire.BytesType && f.Message() != nil {
			*left--
			part, _ := protowire.ConsumeBytes(b)
			countParts(f.Message(), part, left)
		} else if f != nil && f.IsList() {
			*left--
		}
		b = b[n:]
	}
}

// owning is a stream whose answers are counted.
type owning struct {
	grpc.ServerStream
	account *account
}

// SendMsg sends m and counts it in the account.
func (o owning) SendMsg(m any) error { return o.ServerStream.SendMsg(owned{m, o.account}) }

// enter refuses a call or stream for which there is no room. A call that frees something,
// or keeps something alive, is not refused because of other calls.
func (s *Server) enter(ctx context.Context, info *tap.Info) (context.Context, error) {
	c := grpcConn(ctx)
	if c == nil {
		return ctx, nil
	}
	l := c.listener
	room := s.cfg.Limits.StreamsTotal
	if method := info.FullMethodName[strings.LastIndexByte(info.FullMethodName, '/')+1:]; apiv1.KindOfMethod(method).Frees() {
		room *= 2
	}
	// A connection may always have a few. Beyond them it may have at most half of what is
	// free.
	own, all := c.frames.open(), int(l.streams.Load())
	if own <= fewStreams || own <= (room-all+own)/2 {
		return ctx, nil
	}
	return ctx, apiv1.NewError(apiv1.CodeOverloaded, "%d calls and streams are under way on this port, %d of them on this connection; nothing was done", all, own)
}

// fewStreams is how many streams a connection may have however many the others have.
const fewStreams = 4
