package scenario

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pointsmanhq/pointsman/integration/internal/load"
	"github.com/pointsmanhq/pointsman/integration/internal/pki"
	"github.com/pointsmanhq/pointsman/integration/internal/procs"
	"github.com/pointsmanhq/pointsman/integration/internal/stack"
)

// guarded is a world over a secured stack, with the commands that start programs like the stack's own.
type guarded struct {
	*world
	s            *stack.Security
	bin          string
	node, router []string
}

func beginSecured(t *testing.T) *guarded {
	t.Helper()
	if kindOf(t) != stack.Secured {
		t.Skip("needs a stack with TLS, SASL and client certificates: POINTSMAN_STACK=secured (make test-kafka)")
	}
	bin := needPrograms(t)
	w := begin(t, stack.Options{Nodes: 1})
	s := w.Stack.(stack.SecuredStack).Security()
	common := []string{"--topic=" + w.Topic(), "--etcd-prefix=" + w.EtcdPrefix(), "--admin=127.0.0.1:0", "--listen=127.0.0.1:0"}
	g := &guarded{world: w, s: s, bin: bin}
	g.node = append(append([]string{"wsnode"}, common...), append(s.KafkaFlags(), s.EtcdFlags(s.Node)...)...)
	g.router = append(append([]string{"router"}, common...), append(s.EtcdFlags(s.Router), s.LinkFlags()...)...)
	return g
}

// refused starts a program that must say why it cannot go on, and may wait for that to change.
func (g *guarded) refused(t *testing.T, command, flags []string, words ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(t.Context(), 60*time.Second, errors.New("not within 60 s"))
	defer cancel()
	p := run(t, filepath.Join(g.bin, command[0]), append(append([]string(nil), command[1:]...), flags...)...)
	for _, word := range words {
		if err := p.says(ctx, word); err != nil {
			t.Fatalf("%q is not said: %v", word, err)
		}
	}
	last := words[len(words)-1]
	for line := range strings.SplitSeq(p.output(), "\n") {
		if strings.Contains(strings.ToLower(line), strings.ToLower(last)) {
			t.Log(line)
			return
		}
	}
}

// Secured: on a stack whose programs meet each other, Kafka and etcd only behind TLS, SASL and client certificates, what
// is wrong is refused in words that name it, the commands work, and certificates are replaced while everything runs.
func Secured(t *testing.T) {
	g := beginSecured(t)
	g.refusals(t)
	g.commands(t)
	g.certificatesReplaced()
	g.finish()
}

// refusals: each thing that is wrong with a password or a certificate is said in the log in words that name it.
func (g *guarded) refusals(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	wrong := filepath.Join(dir, "wrong")
	g.must(os.WriteFile(wrong, []byte("not the password\n"), 0o600))
	stranger, err := pki.New(dir, "stranger")
	g.must(err)
	foreign, err := stranger.Issue("foreign", time.Hour)
	g.must(err)
	expired, err := g.s.Authority.Issue("expired", -time.Hour)
	g.must(err)
	pair := func(of string, p pki.Pair) []string {
		return []string{"--" + of + "-cert-file=" + p.Cert, "--" + of + "-key-file=" + p.Key}
	}
	for _, tt := range []struct {
		name    string
		command []string
		flags   []string
		says    []string
	}{
		{"KafkaPassword", g.node, []string{"--kafka-password-file=" + wrong}, []string{"authentication failed"}},
		{"KafkaUser", g.node, []string{"--kafka-user=nobody"}, []string{"authentication failed"}},
		{"KafkaMechanism", g.node, []string{"--kafka-sasl-mechanism=PLAIN"}, []string{"authentication failed"}},
		{"KafkaAuthority", g.node, []string{"--kafka-ca-file=" + stranger.File}, []string{"certificate signed by unknown authority", "kafka is not ready"}},
		{"KafkaTopicNotAllowed", g.node, []string{"--topic=another"}, []string{"not authorized"}},
		{"KafkaGroupNotAllowed", g.node, []string{"--group=another", "--etcd-prefix=/another"}, []string{"not authorized"}},
		{"EtcdWithoutCertificate", g.node, []string{"--etcd-cert-file=", "--etcd-key-file="}, []string{"no certificate of our own is shown"}},
		{"EtcdAuthority", g.router, []string{"--etcd-ca-file=" + stranger.File}, []string{"certificate signed by unknown authority", "etcd"}},
		{"EtcdForeignCertificate", g.router, pair("etcd", foreign), []string{"cannot be used yet", "tls: "}},
		{"EtcdExpiredCertificate", g.router, pair("etcd", expired), []string{"certificate has expired", expired.Cert, "cannot be used yet"}},
		{"LinkWithoutCertificate", g.router, []string{"--link-cert-file=", "--link-key-file="}, []string{"certificate required"}},
		{"LinkForeignCertificate", g.router, pair("link", foreign), []string{"cannot link node", "tls: "}},
		{"LinkExpiredCertificate", g.router, pair("link", expired), []string{"expired certificate"}},
		{"LinkAuthority", g.router, []string{"--link-ca-file=" + stranger.File}, []string{"certificate signed by unknown authority"}},
		{"LinkToken", g.router, []string{"--link-token-file=" + wrong}, []string{"token"}},
		{"LinkWithoutTLS", g.router, []string{"--link-tls=false", "--link-ca-file=", "--link-cert-file=", "--link-key-file=", "--link-token-file="}, []string{"HTTP request to an HTTPS server"}},
	} {
		t.Run(tt.name, func(t *testing.T) { g.refused(t, tt.command, tt.flags, tt.says...) })
	}
}

// commands: the commands take the same settings as the node, and a node may use any of the mechanisms.
func (g *guarded) commands(t *testing.T) {
	t.Helper()
	g.client(0, load.Options{Key: "alice"})
	mechanisms := map[string][]string{
		"SCRAM-SHA-512": g.s.KafkaFlags(),
		"SCRAM-SHA-256": append(g.s.KafkaFlags(), "--kafka-sasl-mechanism=SCRAM-SHA-256"),
		"PLAIN":         append(g.s.KafkaFlags(), "--kafka-sasl-mechanism=PLAIN", "--kafka-user="+stack.PlainUser),
	}
	for name, flags := range mechanisms {
		ctx, cancel := g.within(30 * time.Second)
		cmd := exec.CommandContext(ctx, filepath.Join(g.bin, "wsnode"), append([]string{"produce", "--topic=" + g.Topic(), "--key=alice", "by " + name}, flags...)...) //nolint:gosec // our own program
		out, err := cmd.CombinedOutput()
		cancel()
		// Reading is all that the other user may do.
		if may := name == "PLAIN"; may != (err == nil) || !may && !bytes.Contains(out, []byte("not authorized")) {
			t.Errorf("produce with %s: %v: %s", name, err, out)
		}
	}
	all, code := g.doctorWith(g.s.KafkaFlags(), "--tls-cert-file="+g.s.Node.Cert, "--tls-key-file="+g.s.Node.Key)
	for _, check := range []string{"etcd", "map", "kafka", "topic", "group"} {
		g.expectFinding(all, check, "ok")
	}
	if code != 0 {
		t.Errorf("doctor: exit code %d, %+v", code, all)
	}
	wrong := filepath.Join(t.TempDir(), "wrong")
	g.must(os.WriteFile(wrong, []byte("not the password"), 0o600))
	all, code = g.doctorWith(append(g.s.KafkaFlags(), "--kafka-password-file="+wrong))
	g.expectFinding(all, "kafka", "wrong", "uthentication failed", "--kafka-user")
	if code != 1 {
		t.Errorf("a wrong password: exit code %d, want 1", code)
	}
	// A node by each of the other mechanisms serves.
	for name, flags := range mechanisms {
		p := run(t, filepath.Join(g.bin, "wsnode"), append(append([]string(nil), g.node[1:]...), append(flags,
			"--id="+strings.ToLower(name), "--tls-cert-file="+g.s.Node.Cert, "--tls-key-file="+g.s.Node.Key,
			"--tls-client-ca-file="+g.s.Authority.File, "--link-token-file="+g.s.LinkToken)...)...)
		ctx, cancel := g.within(time.Minute)
		if err := p.says(ctx, "node is published"); err != nil {
			t.Errorf("node by %s: %v", name, err)
		}
		cancel()
	}
	g.put("alice", "1")
}

func (g *guarded) doctorWith(flags []string, more ...string) ([]finding, int) {
	g.t.Helper()
	return g.doctorAt(g.bin, append(append(g.s.EtcdFlags(g.s.Node), flags...), more...)...)
}

// certificatesReplaced: certificates of nodes and routers are replaced in their files while everything runs. New links
// use the new ones, open ones go on, and no client notices.
func (g *guarded) certificatesReplaced() {
	g.t.Helper()
	names := keys("client", 20)
	g.connect(names, load.Options{})
	g.produce(append(names, "alice"), 200, 64) // all who are connected: settled waits for each
	g.must(g.settled(30 * time.Second))

	shows := func(p pki.Pair) (string, error) {
		show, err := tls.LoadX509KeyPair(p.Cert, p.Key)
		if err != nil {
			return "", err
		}
		conn, err := tls.Dial("tcp", g.Nodes()[0].Addr, &tls.Config{RootCAs: g.s.Authority.Pool(), Certificates: []tls.Certificate{show}, MinVersion: tls.VersionTLS12})
		if err != nil {
			return "", err
		}
		defer func() { _ = conn.Close() }()
		return conn.ConnectionState().PeerCertificates[0].Subject.CommonName, nil
	}
	if name, err := shows(g.s.Router); err != nil || name != "node" {
		g.t.Fatalf("the node shows %q, %v", name, err)
	}
	g.must(g.s.Authority.Replace(g.s.Node, "renewed-node", time.Hour))
	g.must(g.s.Authority.Replace(g.s.Router, "renewed-router", time.Hour))
	ctx, cancel := g.within(30 * time.Second)
	defer cancel()
	g.must(procs.Poll(ctx, 100*time.Millisecond, func() error {
		name, err := shows(g.s.Router)
		if err == nil && name != "renewed-node" {
			err = fmt.Errorf("the node shows %q", name)
		}
		return err
	}))
	// The router dials a node that is new, and shows what its files say now.
	_, err := g.AddNode(g.ctx)
	g.must(err)
	g.must(procs.Poll(ctx, 100*time.Millisecond, func() error {
		text, err := os.ReadFile(g.Routers()[0].Log)
		if err == nil && !bytes.Contains(text, []byte("certificate read again")) {
			err = errors.New("the router does not say that it has read its certificate again")
		}
		return err
	}))
	g.must(g.settled(30 * time.Second))
}
