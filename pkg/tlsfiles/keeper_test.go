package tlsfiles_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/pointsmanhq/pointsman/pkg/tlsfiles"
)

// meet shakes hands over a pipe, exchanges a byte, and returns the certificates that each end showed.
func meet(client, server *tls.Config) (fromServer, fromClient *x509.Certificate, err error) {
	near, far := net.Pipe()
	// A pipe holds nothing: two ends that refuse each other at once both wait to say so.
	_ = near.SetDeadline(time.Now().Add(time.Second))
	_ = far.SetDeadline(time.Now().Add(time.Second))
	client = client.Clone()
	client.ServerName = "localhost"
	cc, sc := tls.Client(near, client), tls.Server(far, server)
	served := make(chan error, 1)
	go func() {
		// The read tells a client that was refused: with TLS 1.3 its handshake is over before.
		_, err := sc.Write([]byte{1})
		_ = sc.Close()
		served <- err
	}()
	_, err = cc.Read(make([]byte, 1))
	_ = cc.Close()
	err = errors.Join(err, <-served)
	if c := cc.ConnectionState().PeerCertificates; len(c) > 0 {
		fromServer = c[0]
	}
	if c := sc.ConnectionState().PeerCertificates; len(c) > 0 {
		fromClient = c[0]
	}
	return fromServer, fromClient, err
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func pass(d time.Duration) { <-time.After(d) }

// A certificate and its authority are replaced under a server and a client that go on: one end first, then the other.
func TestChangedFilesAreReadAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cert, key := pair(t) // what both ends read
		first := certificate(t, cert)
		core, logs := observer.New(zapcore.InfoLevel)
		server, err := tlsfiles.Server(zap.New(core), cert, key, cert)
		if err != nil {
			t.Fatal(err)
		}
		client, err := tlsfiles.Client(zap.New(core), true, cert, cert, key)
		if err != nil {
			t.Fatal(err)
		}
		shown, by, err := meet(client, server)
		if err != nil || !shown.Equal(first) || !by.Equal(first) {
			t.Fatalf("before the change: %v", err)
		}

		nextCert, nextKey := pair(t)
		second := certificate(t, nextCert)
		copyFile(t, nextCert, cert) // the key comes later: the two do not fit for a while
		pass(2 * time.Second)
		if shown, _, err := meet(client, server); err != nil || !shown.Equal(first) {
			t.Errorf("between the writes of certificate and key: %v", err)
		}
		if logs.FilterMessage("changed certificate cannot be used, the earlier one stays in force").Len() != 2 {
			t.Errorf("both ends should say that they could not use it: %v", logs.All())
		}
		copyFile(t, nextKey, key)
		pass(2 * time.Second)
		// The client still knows servers by the first one: only a restart changes that.
		if _, _, err := meet(client, server); err == nil {
			t.Error("the client believed a server that nobody vouches for")
		}
		fresh, err := tlsfiles.Client(nil, true, cert, cert, key)
		if err != nil {
			t.Fatal(err)
		}
		shown, by, err = meet(fresh, server)
		if err != nil || !shown.Equal(second) || !by.Equal(second) {
			t.Errorf("after the change: %v", err)
		}
		// Who still shows the first one is no longer let in.
		client.RootCAs = fresh.RootCAs
		oldCert, oldKey := pair(t)
		stranger, err := tlsfiles.Client(nil, true, cert, oldCert, oldKey)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := meet(stranger, server); err == nil {
			t.Error("a client was let in that nobody vouches for")
		}
		if _, by, err := meet(client, server); err != nil || !by.Equal(second) {
			t.Errorf("the client that was there before the change does not show the new certificate: %v", err)
		}
		if n := logs.FilterMessage("certificate read again").Len(); n != 2 {
			t.Errorf("%d ends read the new certificate, want 2", n)
		}

		if err := os.Remove(cert); err != nil {
			t.Fatal(err)
		}
		pass(2 * time.Second)
		if shown, _, err := meet(fresh, server); err != nil || !shown.Equal(second) {
			t.Errorf("without a file: %v", err)
		}
	})
}

func TestCertificatesThatOthersWillRefuseAreNamed(t *testing.T) {
	now := time.Now()
	for name, q := range map[string]struct {
		from, to time.Time
		want     string
	}{
		"expired":  {now.Add(-48 * time.Hour), now.Add(-time.Hour), "certificate has expired"},
		"too soon": {now.Add(time.Hour), now.Add(48 * time.Hour), "certificate is not valid yet"},
		"soon":     {now.Add(-90 * 24 * time.Hour), now.Add(24 * time.Hour), "certificate expires soon"},
		"short":    {now.Add(-time.Minute), now.Add(time.Hour), ""},
		"long":     {now.Add(-time.Hour), now.Add(90 * 24 * time.Hour), ""},
	} {
		t.Run(name, func(t *testing.T) {
			core, logs := observer.New(zapcore.InfoLevel)
			cert, key := pairFor(t, q.from, q.to)
			if _, err := tlsfiles.Server(zap.New(core), cert, key, ""); err != nil {
				t.Fatal(err)
			}
			got := ""
			for _, e := range logs.All() {
				got += e.Message
			}
			if got != q.want {
				t.Errorf("it says %q, want %q", got, q.want)
			}
		})
	}
}
