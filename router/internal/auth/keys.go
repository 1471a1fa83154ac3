package auth

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/MicahParks/jwkset"
	"github.com/MicahParks/keyfunc/v3"
)

// minRSA is the shortest modulus that RFC 7518 allows, in bits.
const minRSA = 2048

// keySet is the public keys that were read from one text. It never changes.
type keySet struct {
	keyfunc.Keyfunc
	ids     []string
	ignored int
}

// parseSet reads a JWK Set. Keys that cannot or must not check tokens are left out; a set without any other is an
// error, because it can only be a mistake.
func parseSet(text []byte, algorithms []string) (*keySet, error) {
	var set jwkset.JWKSMarshal
	if err := json.Unmarshal(text, &set); err != nil {
		return nil, errors.New("it is not a JWK Set") // a decoder's error may quote a private key
	}
	s := &keySet{}
	var keys []jwkset.JWK
	for _, m := range set.Keys {
		k, err := jwkset.NewJWKFromMarshal(m, jwkset.JWKMarshalOptions{}, jwkset.JWKValidateOptions{})
		if err != nil || !usable(k, algorithms) {
			s.ignored++
			continue
		}
		keys = append(keys, k)
		s.ids = append(s.ids, m.KID)
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("it holds no key for %v (%d others)", algorithms, s.ignored)
	}
	ctx := context.Background()
	store := jwkset.NewMemoryStorage()
	if err := store.KeyReplaceAll(ctx, keys); err != nil {
		return nil, fmt.Errorf("store keys: %w", err)
	}
	var err error
	s.Keyfunc, err = keyfunc.New(keyfunc.Options{Ctx: ctx, Storage: store})
	return s, err
}

// usable tells whether a key may check tokens: a public one, meant for signatures, strong enough, of an allowed
// algorithm.
func usable(k jwkset.JWK, algorithms []string) bool {
	m := k.Marshal()
	if m.USE != "" && m.USE != jwkset.UseSig {
		return false
	}
	if m.ALG != "" && !slices.Contains(algorithms, m.ALG.String()) {
		return false
	}
	switch key := k.Key().(type) {
	case *rsa.PublicKey:
		return key.N.BitLen() >= minRSA
	case *ecdsa.PublicKey, ed25519.PublicKey:
		return true
	}
	return false // secrets do not belong into a set, and private keys not to us
}
