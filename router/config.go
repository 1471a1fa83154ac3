package router

import (
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/pointsmanhq/pointsman/router/internal/edge"
)

// Config says what a router is and where its dependencies are. Zero values mean the defaults named there.
type Config struct {
	ID    string // for the nodes' logs; default: host name and a random suffix
	Topic string // needed

	Etcd         []string // default 127.0.0.1:2379
	EtcdPrefix   string   // default /pointsman
	EtcdTLS      *tls.Config
	EtcdUser     string
	EtcdPassword string

	Listen  string      // for clients; default :8080; port 0 takes a free one
	TLS     *tls.Config // nil: clients speak plain TCP
	Auth    string      // "none" (default) or "jwt"
	Origins []string    // patterns of foreign origins that browsers may come from
	Admin   string      // for operators; empty: no admin server

	// The following belong to Auth "jwt"; JWKS, JWTSecretFile or both are needed.
	JWKS             string        // URL or path of the keys that tokens are signed with
	JWKSRefresh      time.Duration // default 5 min: how often a URL is asked for them
	JWKSTLS          *tls.Config   // for a https URL; nil: the system's certificates vouch for it
	JWTSecretFile    string        // file with the secret of HS256
	JWTAlgorithms    []string      // default: RS256, ES256, EdDSA with JWKS, HS256 with JWTSecretFile
	JWTKeyClaim      string        // the claim with the client key; default sub
	JWTIssuer        string        // empty: any
	JWTAudience      []string      // one of them must be a token's; empty: any
	JWTLeeway        time.Duration // default 5 s, negative: none
	JWTAllowNoExpiry bool          // take tokens that never expire
	JWTCookie        string        // cookie that a token may come in; empty: none
	JWTRenewBefore   time.Duration // default 1 min: how long before its token's end a client is told

	Heartbeat          time.Duration // default 15 s: the longest that a client hears nothing
	MaxKeys            int           // default 100: keys that one socket may follow
	ClientWindow       int64         // bytes that one client may have queued and under way; default 128 KiB
	CompressFrom       int           // length of a message from which on it is compressed for clients that offer it; 0: never
	ClientPing         time.Duration // default 20 s: silence after which a client is asked for a sign of life
	ClientTimeout      time.Duration // default 60 s: silence after which it is given up
	ClientStallTimeout time.Duration // default 5 min: how long a client's socket may take no bytes at all
	ResumeTimeout      time.Duration // default 10 s: how long a client's message may take, that of ?resume=message from the connect on
	AcceptTimeout      time.Duration // default 10 s: how long a request's head may take
	DrainTimeout       time.Duration // default 30 s
	DrainDelay         time.Duration // how much of it the router goes on taking clients, although unready; default none

	Limits Limits // what clients may take

	LinkToken       string // shown to nodes
	LinkTLS         *tls.Config
	LinkPing        time.Duration // default 1 s
	LinkTimeout     time.Duration // default 3 s: a node that is silent for so long is given up
	LinkDialTimeout time.Duration // default 2 s
	LinkRetry       time.Duration // default 2 s: longest wait before a node is dialled again

	Version string // the program's, for links
	Fault   string // POINTSMAN_FAULT, for builds with the tag pointsman_faults
}

// Deps are what a router is given.
type Deps struct {
	// Logger may be nil.
	Logger *zap.Logger
	// Registerer, if not nil, gets the router's metrics instead of the admin server's own registry.
	Registerer prometheus.Registerer
}

func (c *Config) defaults() error {
	if c.Topic == "" {
		return errors.New("no topic given")
	}
	text := func(v *string, to string) {
		if *v == "" {
			*v = to
		}
	}
	wait := func(v *time.Duration, to time.Duration) {
		if *v <= 0 {
			*v = to
		}
	}
	text(&c.EtcdPrefix, "/pointsman")
	text(&c.Listen, ":8080")
	text(&c.Auth, "none")
	text(&c.Version, "devel")
	if len(c.Etcd) == 0 {
		c.Etcd = []string{"127.0.0.1:2379"}
	}
	if c.MaxKeys <= 0 {
		c.MaxKeys = 100
	}
	if c.ClientWindow <= 0 {
		c.ClientWindow = 128 << 10
	}
	wait(&c.Heartbeat, 15*time.Second)
	wait(&c.ClientPing, 20*time.Second)
	wait(&c.ClientTimeout, time.Minute)
	wait(&c.ClientStallTimeout, 5*time.Minute)
	wait(&c.ResumeTimeout, 10*time.Second)
	wait(&c.AcceptTimeout, 10*time.Second)
	wait(&c.DrainTimeout, 30*time.Second)
	wait(&c.LinkPing, time.Second)
	wait(&c.LinkTimeout, 3*time.Second)
	wait(&c.LinkDialTimeout, 2*time.Second)
	wait(&c.LinkRetry, 2*time.Second)
	wait(&c.JWTRenewBefore, time.Minute)
	if c.ID == "" {
		id, err := defaultID()
		if err != nil {
			return err
		}
		c.ID = id
	}
	return edge.CheckOrigins(c.Origins)
}

func defaultID() (string, error) {
	host, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("find a router id: %w", err)
	}
	var b [3]byte
	if _, err := rand.Read(b[:]); err != nil {
		return "", fmt.Errorf("make a random id: %w", err)
	}
	return host + "-" + hex.EncodeToString(b[:]), nil
}
