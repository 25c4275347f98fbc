package apiv1

import (
	"fmt"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// FuzzStatus decodes arbitrary bytes as the gRPC status of a node. An error stays
// an error, whatever is in its details, and what is found in it stays the same when it is sent
// again.
func FuzzStatus(f *testing.F) {
	add := func(s *status.Status) {
		b, err := proto.Marshal(s.Proto())
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	for code := range codeTable {
		add(NewError(Code(code), "why").GRPCStatus())
	}
	for c := codes.OK; c <= codes.Unauthenticated; c++ {
		add(status.New(c, "why"))
	}
	for _, e := range []*Error{{}, {Code: 999, Holders: []*Holder{{Token: 1}}, Leader: "a:1"}} {
		if s, err := status.New(codes.Unknown, "").WithDetails(e, e); err == nil {
			add(s)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		p := status.New(codes.OK, "").Proto()
		if proto.Unmarshal(data, p) != nil {
			return
		}
		err := status.FromProto(p).Err()
		e := AsError(err)
		if err == nil {
			if e != nil || CodeOf(err) != CodeOK {
				t.Fatalf("no error became %v", e)
			}
			return
		}
		if e == nil || Code(e.GetCode()) == CodeOK || Code(e.GetCode()).ExitCode() == exitOK || Code(e.GetCode()).HTTPStatus() < 400 {
			t.Fatalf("%v became %v, exit code %d", err, e, CodeOf(err).ExitCode())
		}
		if again := AsError(fmt.Errorf("wrapped: %w", e.GRPCStatus().Err())); !proto.Equal(again, e) {
			t.Fatalf("%v became %v on its way", e, again)
		}
	})
}
