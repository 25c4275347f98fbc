package node

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/client"
	"github.com/locknode/locknode/internal/audit"
)

// guarded is a cluster of one that requires rights, with access tokens for the policies.
func guarded(t *testing.T, policies ...client.Policy) (c *testCluster, file *auditFile, secrets map[string]string) {
	t.Helper()
	file = &auditFile{}
	c = startClusterWith(t, 1, func(cfg *Config) {
		cfg.Auth.Mode, cfg.Audit.To = "required", file
	})
	c.eventually("the table has rights", func() bool { return c.nodes[0].rights.hasLevel() })
	me := c.nodes[0].Client()
	if _, err := me.ChangePolicies(t.Context(), policies, nil, 0); err != nil {
		t.Fatal(err)
	}
	secrets = map[string]string{}
	for _, p := range policies {
		_, secret, err := me.CreateAccessToken(t.Context(), client.NewAccessToken{Name: p.Name})
		if err != nil {
			t.Fatal(err)
		}
		secrets[p.Name] = secret
	}
	return c, file, secrets
}

// as returns a context and a connection for calls with a secret.
func as(t *testing.T, n *Node, secret string) (context.Context, apiv1.LocksClient) {
	t.Helper()
	cc, err := grpc.NewClient(n.APIAddr(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cc.Close() })
	return metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+secret), apiv1.NewLocksClient(cc)
}

func policy(name, prefix string, quota client.Quota, more ...client.Rule) client.Policy {
	return client.Policy{Name: name, For: []string{"token:" + name}, Quota: quota, Rules: append(more,
		client.Rule{Rights: []client.Right{client.RightRead, client.RightLock}, Name: prefix})}
}

func wantOf(name string) *apiv1.AcquireRequest {
	return &apiv1.AcquireRequest{Locks: []*apiv1.Want{{Name: name}}, TtlNs: int64(time.Minute)}
}

func TestDenialsAndChangesOfRightsAreRecordedWithWhoAndWhatWasMissing(t *testing.T) {
	t.Parallel()
	c, file, secrets := guarded(t, policy("shop", "orders/", client.Quota{}),
		policy("boss", "orders/", client.Quota{}, client.Rule{Rights: []client.Right{client.RightAdmin, client.RightForce}}))
	ctx, shop := as(t, c.nodes[0], secrets["shop"])
	if _, err := shop.Acquire(ctx, wantOf("billing/1")); apiv1.CodeOf(err) != apiv1.CodeDenied {
		t.Fatalf("acquire of what is not its own: %v, want denied", err)
	}
	if _, err := shop.RemoveMember(ctx, &apiv1.RemoveMemberRequest{Id: "n9"}); apiv1.CodeOf(err) != apiv1.CodeDenied {
		t.Fatalf("remove a member: %v, want denied", err)
	}
	ctx, boss := as(t, c.nodes[0], secrets["boss"])
	if _, err := boss.RevokeAccessToken(ctx, &apiv1.RevokeAccessTokenRequest{Accessor: "nobody", Reason: "left"}); err == nil {
		t.Fatal("an access token that does not exist was revoked")
	}
	c.eventually("all is recorded", func() bool { return len(file.lines(t, audit.EventRevokeToken)) > 0 })
	denied := file.lines(t, audit.EventDenied)
	if len(denied) != 2 {
		t.Fatalf("denied: %+v, want two lines", denied)
	}
	for i, want := range []auditLine{{Name: "billing/1", Error: "lock", Notes: map[string]string{"operation": "acquire"}}, {Error: "admin", Notes: map[string]string{"operation": "remove_member"}}} {
		got := denied[i]
		if got.Identity != "token:shop" || got.Name != want.Name || got.Outcome != "denied" || !strings.Contains(got.Error, want.Error) ||
			got.Notes["operation"] != want.Notes["operation"] || !strings.HasPrefix(got.Address, "127.0.0.1:") {
			t.Errorf("denied: %+v, want %+v", got, want)
		}
	}
	if l := file.lines(t, audit.EventRevokeToken)[0]; l.Identity != "token:boss" || l.Reason != "left" || l.Outcome == "ok" {
		t.Errorf("revoke: %+v", l)
	}
	if made := file.lines(t, audit.EventCreateToken, audit.EventChangePolicies); len(made) != 3 || made[0].Identity != "embedded" {
		t.Errorf("what the program has made: %+v, want a change of policies and two access tokens", made)
	}
	file.mu.Lock()
	defer file.mu.Unlock()
	for name, secret := range secrets {
		if strings.Contains(file.bytes.String(), secret) {
			t.Errorf("the secret of %s is in the audit", name)
		}
	}
}

// One identity that floods is refused what is over its quota, and told when to come again. It
// can release what it holds, and another identity at the same address works on.
func TestAFloodOfOneIdentityIsRefusedAndAnotherWorksOn(t *testing.T) {
	t.Parallel()
	const rate = 20
	c, _, secrets := guarded(t, policy("flood", "flood/", client.Quota{OpsPerSecond: rate}), policy("shop", "orders/", client.Quota{}))
	ctx, flood := as(t, c.nodes[0], secrets["flood"])
	begun := time.Now()
	first, err := flood.Acquire(ctx, wantOf("flood/first"))
	if err != nil {
		t.Fatal(err)
	}
	stream, err := flood.Session(ctx)
	if err != nil {
		t.Fatal(err)
	}
	const messages, each = 20, 100
	var receiving sync.WaitGroup
	accepted, refused := 1, 0
	receiving.Go(func() {
		for got := 0; got < messages*each; {
			res, err := stream.Recv()
			if err != nil {
				t.Errorf("after %d answers: %v", got, err)
				return
			}
			for _, a := range res.GetAnswers() {
				got++
				switch e := a.GetError(); {
				case e == nil:
					accepted++
				case apiv1.Code(e.GetCode()) == apiv1.CodeOverloaded && e.GetRetryAfterNs() > 0 && strings.Contains(e.GetMessage(), "token:flood"):
					refused++
				default:
					t.Errorf("answered %v", e)
				}
			}
		}
	})
	ctx2, shop := as(t, c.nodes[0], secrets["shop"])
	for i := range messages {
		m := &apiv1.SessionRequest{}
		for j := range each {
			m.Operations = append(m.Operations, &apiv1.Operation{Id: uint64(i*each + j + 1), Request: &apiv1.Operation_Acquire{Acquire: wantOf(fmt.Sprintf("flood/%d/%d", i, j))}})
		}
		if err := stream.Send(m); err != nil {
			t.Fatal(err)
		}
		name := fmt.Sprintf("orders/%d", i)
		got, err := shop.Acquire(ctx2, wantOf(name))
		if err != nil {
			t.Fatalf("the other identity: %v", err)
		}
		if _, err := shop.Release(ctx2, &apiv1.ReleaseRequest{Name: name, Token: got.GetToken()}); err != nil {
			t.Fatalf("the other identity: %v", err)
		}
	}
	if _, err := flood.Release(ctx, &apiv1.ReleaseRequest{Name: "flood/first", Token: first.GetToken()}); err != nil {
		t.Errorf("a release in the flood: %v", err)
	}
	receiving.Wait()
	if err := stream.CloseSend(); err != nil {
		t.Error(err)
	}
	most := rate + int(rate*time.Since(begun).Seconds()) + 1
	if accepted > most || refused == 0 {
		t.Errorf("%d accepted and %d refused, want at most %d accepted", accepted, refused, most)
	}
}
