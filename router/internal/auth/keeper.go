package auth

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/golang-jwt/jwt/v5"
	"go.uber.org/zap"
)

const (
	// pollFiles is how often files are looked at.
	pollFiles = time.Second
	// coolEndpoint and coolFile are how long after a fetch an unknown key causes no other one: anybody can send
	// tokens that name unknown keys, and neither the issuer nor the router may be made to work for that.
	coolEndpoint = 10 * time.Second
	coolFile     = time.Second
	// firstRetry and lastRetry bound the wait after a fetch that failed; it doubles.
	firstRetry = time.Second
	lastRetry  = 30 * time.Second
	// sayAgain is how often the log repeats that a file cannot be read.
	sayAgain = 30 * time.Second
	// soon is when to come back to a router that has no keys yet.
	soon = time.Second
)

// keeper holds the keys in force. Its run is the only one who loads them; everybody else asks it to.
type keeper struct {
	// Static after construction.
	log        *zap.Logger
	algorithms []string
	source     source // nil: no JWK Set
	secretFile *file  // nil: no secret
	poll       time.Duration
	refresh    time.Duration
	cooldown   time.Duration
	ask        chan struct{} // capacity 1: somebody waits for a fetch; never closed
	over       chan struct{} // closed at the end of run

	set      atomic.Pointer[keySet] // the keys in force, nil before the first
	secret   atomic.Pointer[[]byte] // the same of the secret
	loaded   atomic.Int64           // Unix nanoseconds of the last fetch that went well
	failures atomic.Uint64

	mu      sync.Mutex
	running bool          // guarded by mu; a fetch is under way
	cool    time.Time     // guarded by mu; no unknown key causes a fetch before
	ended   chan struct{} // guarded by mu; closed, and replaced, at the end of every fetch
	err     error         // guarded by mu; of the last fetch

	// Owned by run.
	text    []byte // what the set in force was read from
	said    string
	saidAt  time.Time
	retryIn time.Duration
}

func newKeeper(cfg *Config) (*keeper, error) {
	k := &keeper{
		log: cfg.Logger, algorithms: cfg.Algorithms, poll: cfg.Poll, refresh: cfg.Refresh, cooldown: cfg.Cooldown,
		ask: make(chan struct{}, 1), over: make(chan struct{}), ended: make(chan struct{}),
	}
	if k.poll <= 0 {
		k.poll = pollFiles
	}
	if k.refresh <= 0 {
		k.refresh = DefaultRefresh
	}
	if cfg.SecretFile != "" {
		k.secretFile = &file{path: cfg.SecretFile}
		// Unlike a set, a secret has no reason to come later than the router.
		if err := k.loadSecret(); err != nil {
			return nil, fmt.Errorf("secret of tokens: %w", err)
		}
	}
	if cfg.JWKS == "" {
		return k, nil
	}
	var err error
	if k.source, err = newSource(cfg.JWKS, cfg.TLS); err != nil {
		return nil, err
	}
	if k.cooldown <= 0 {
		k.cooldown = coolFile
		if _, ok := k.source.(*endpoint); ok {
			k.cooldown = coolEndpoint
		}
	}
	return k, nil
}

// run loads the keys, at once and whenever there is a reason, until ctx ends.
func (k *keeper) run(ctx context.Context) {
	defer close(k.over)
	poll := time.NewTicker(k.poll)
	defer poll.Stop()
	due := time.NewTimer(k.refresh)
	defer due.Stop()
	if e, ok := k.source.(*endpoint); ok && e.inTheClear() {
		k.log.Warn("keys of tokens are fetched in plain text; who sits on the way can put in others", zap.String("from", e.String()))
	}
	fetch := func() {
		if k.source != nil {
			due.Reset(k.load(ctx))
		}
	}
	for fetch(); ; {
		select {
		case <-ctx.Done():
			return
		case <-due.C:
			fetch()
		case <-k.ask:
			if !k.cooling() { // a fetch that came in between has served who asked
				fetch()
			}
		case <-poll.C:
			if k.source != nil {
				if yes, ok := k.source.changed(); ok && yes {
					fetch()
				}
			}
			if k.secretFile != nil {
				k.watchSecret()
			}
		}
	}
}

func (k *keeper) cooling() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return time.Now().Before(k.cool)
}

// load fetches the set once and says when to do it again. Whatever goes wrong, the last keys stay in force.
func (k *keeper) load(ctx context.Context) (again time.Duration) {
	k.mu.Lock()
	k.running = true
	k.cool = time.Now().Add(k.cooldown)
	k.mu.Unlock()

	set, err := k.fetch(ctx)
	if err == nil {
		k.loaded.Store(time.Now().UnixNano())
		k.retryIn, k.said, again = 0, "", k.refresh
	} else {
		k.failures.Add(1)
		k.retryIn = min(max(2*k.retryIn, firstRetry), lastRetry, k.refresh)
		again = k.retryIn
		if ctx.Err() == nil {
			k.complain("keys of tokens cannot be loaded", err)
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if set != nil {
		k.set.Store(set)
	}
	k.running, k.err = false, err
	close(k.ended)
	k.ended = make(chan struct{})
	return again
}

// fetch gives the set to put in force, nil when it is the one in force already.
func (k *keeper) fetch(ctx context.Context) (*keySet, error) {
	text, err := k.source.fetch(ctx)
	if err != nil {
		return nil, err
	}
	if k.text != nil && bytes.Equal(text, k.text) {
		return nil, nil
	}
	set, err := parseSet(text, k.algorithms)
	if err != nil {
		return nil, err
	}
	k.text = text
	k.log.Info("keys of tokens loaded", zap.Stringer("from", k.source), zap.Strings("key_ids", set.ids), zap.Int("ignored", set.ignored))
	return set, nil
}

// complain logs a failure, the same one only now and then.
func (k *keeper) complain(what string, err error) {
	if text := err.Error(); text != k.said || time.Since(k.saidAt) > sayAgain {
		k.said, k.saidAt = text, time.Now()
		fields := []zap.Field{zap.Error(err), zap.Bool("last_keys_in_force", k.set.Load() != nil)}
		if k.source != nil {
			fields = append(fields, zap.Stringer("from", k.source))
		}
		k.log.Warn(what, fields...)
	}
}

// watchSecret reads the secret again when its file was changed. The last one stays in force when that fails.
func (k *keeper) watchSecret() {
	if yes, _ := k.secretFile.changed(); !yes {
		return
	}
	if err := k.loadSecret(); err != nil {
		k.failures.Add(1)
		k.log.Warn("secret of tokens cannot be read again; the last one stays in force", zap.Error(err))
		return
	}
	k.log.Info("secret of tokens loaded")
}

func (k *keeper) loadSecret() error {
	text, err := k.secretFile.fetch(context.Background())
	if err != nil {
		return err
	}
	secret := bytes.TrimRight(text, "\r\n") // as editors end files
	if len(secret) < minSecret {
		return fmt.Errorf("%s holds %d bytes; at least %d are needed, or it can be guessed", k.secretFile, len(secret), minSecret)
	}
	k.secret.Store(&secret)
	return nil
}

// secretKey is the key of the HS algorithms.
func (k *keeper) secretKey() ([]byte, error) {
	if s := k.secret.Load(); s != nil {
		return *s, nil
	}
	return nil, refuse(Algorithm, "tokens that are signed with a secret are not taken here")
}

// publicKey finds the key that a token names. One that is not in the set may be new: the set is fetched again, if
// that was not done a moment ago.
func (k *keeper) publicKey(ctx context.Context, t *jwt.Token) (any, error) {
	set := k.set.Load()
	if set == nil {
		return nil, &Error{Cause: Unavailable, Retry: soon, Reason: "this router has no keys to check tokens with yet; try again in a moment"}
	}
	key, err := set.Keyfunc.Keyfunc(t)
	if !errors.Is(err, jwkset.ErrKeyNotFound) {
		return key, err
	}
	fresh, retry := k.fetchAgain(ctx)
	if key, err = k.set.Load().Keyfunc.Keyfunc(t); !errors.Is(err, jwkset.ErrKeyNotFound) {
		return key, err
	}
	if fresh {
		return nil, refuse(UnknownKey, "the token is signed with a key that is not in the JWK Set")
	}
	return nil, &Error{Cause: Unavailable, Retry: retry, Reason: "the token is signed with a key that this router does not know; try again in a moment, it will look then"}
}

// fetchAgain waits for a fetch of the set. fresh says that one began after the call and went well; else retry is when
// another may be asked for.
func (k *keeper) fetchAgain(ctx context.Context) (fresh bool, retry time.Duration) {
	k.mu.Lock()
	wait := time.Until(k.cool)
	ended, running := k.ended, k.running
	k.mu.Unlock()
	if !running && wait > 0 {
		return false, wait
	}
	if !running {
		select {
		case k.ask <- struct{}{}:
		default: // asked for already
		}
	}
	select {
	case <-ended:
	case <-ctx.Done():
		return false, soon
	case <-k.over:
		return false, soon
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return !running && k.err == nil, max(time.Until(k.cool), soon)
}

func (k *keeper) ready() error {
	if k.source == nil || k.set.Load() != nil {
		return nil // a secret is read before the start
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.err != nil {
		return fmt.Errorf("no keys to check tokens with, from %s: %w", k.source, k.err)
	}
	return fmt.Errorf("no keys to check tokens with yet, from %s", k.source)
}

// State is what operators are told about the keys.
type State struct {
	Keys     int       `json:"keys"` // public ones; the secret is not counted
	KeyIDs   []string  `json:"key_ids,omitempty"`
	Loaded   time.Time `json:"loaded,omitzero"` // the last fetch that went well
	Failures uint64    `json:"failures"`
	Error    string    `json:"error,omitempty"` // of the last fetch
}

func (k *keeper) state() State {
	s := State{Failures: k.failures.Load()}
	if set := k.set.Load(); set != nil {
		s.Keys, s.KeyIDs = len(set.ids), set.ids
	}
	if at := k.loaded.Load(); at != 0 {
		s.Loaded = time.Unix(0, at)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.err != nil {
		s.Error = k.err.Error()
	}
	return s
}
