package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tokenledger/tokenledger/ledger/signin"
)

// peopleTag marks the operations by which people sign in and manage their
// credentials.
const peopleTag = "people"

type signInInput struct {
	Body struct {
		Login    string `json:"login,omitempty" maxLength:"200"`
		Password string `json:"password,omitempty" maxLength:"512" format:"password"`
		Code     string `json:"code,omitempty" maxLength:"64" doc:"current code of the second factor, or a recovery code"`
		Token    string `json:"token,omitempty" maxLength:"128" format:"password" doc:"instead of login and password, if the policy has token_sign_in"`
	}
}

type signInOutput struct {
	Body struct {
		Secret  string  `json:"secret" doc:"send it as a bearer; shown only here"`
		Session Session `json:"session"`
	}
}

type passwordInput struct {
	Body struct {
		Invitation string `json:"invitation" maxLength:"128" format:"password"`
		Password   string `json:"password" maxLength:"512" format:"password" doc:"15 to 128 characters; not a common password"`
	}
}

type passwordOutput struct {
	Body struct {
		Account string `json:"account" doc:"id of the account whose password was set"`
	}
}

type changePasswordInput struct {
	Body struct {
		Old string `json:"old" maxLength:"512" format:"password"`
		New string `json:"new" maxLength:"512" format:"password"`
	}
}

type inviteInput struct {
	AccountPath
	Body *struct {
		Reset bool `json:"reset_second_factor,omitempty" doc:"setting the password also removes the second factor, for a person who has lost it"`
	}
}

type inviteOutput struct {
	Body struct {
		Account    string    `json:"account" doc:"the account's id"`
		Invitation string    `json:"invitation" doc:"the person sets a password with it, once; shown only here"`
		ExpiresAt  time.Time `json:"expires_at"`
	}
}

type codeInput struct {
	Body struct {
		Code string `json:"code" maxLength:"64" doc:"current code of the second factor, or a recovery code"`
	}
}

type optionalCodeInput struct {
	Body *struct {
		Code string `json:"code,omitempty" maxLength:"64" doc:"code of the current second factor, or a recovery code; required if the account has a second factor"`
	}
}

func (in *optionalCodeInput) code() string {
	if in.Body == nil {
		return ""
	}
	return in.Body.Code
}

type enrolmentOutput struct {
	Body struct {
		Secret string `json:"secret" doc:"secret for an authenticator app, in base32; shown only here"`
		URI    string `json:"uri" doc:"the secret as an otpauth URI, to be shown as a QR code"`
	}
}

type recoveryOutput struct {
	Body struct {
		Codes []string `json:"recovery_codes" doc:"each works once, instead of a code; shown only here"`
	}
}

// doneOutput is the answer of an operation without a result.
type doneOutput struct {
	Body struct {
		Done bool `json:"done"`
	}
}

func newDoneOutput() *doneOutput {
	out := &doneOutput{}
	out.Body.Done = true
	return out
}

func (a *api) peopleRoutes(h huma.API) {
	op := peopleOperation
	open := func(o huma.Operation) huma.Operation {
		o.Security = []map[string][]string{{}} // needs no token, unlike the rest
		return o
	}
	register(a, h, open(op(http.MethodPost, "/v1/session", "sign-in", "Open a session")), a.openSession)
	register(
		a,
		h,
		open(op(http.MethodPost, "/v1/password", "set-password", "Set a password with an invitation")),
		a.setPassword,
	)
	register(
		a,
		h,
		op(
			http.MethodPut,
			"/v1/password",
			"change-password",
			"Change the caller's password and end its other sessions",
		),
		a.changePassword,
	)
	register(
		a,
		h,
		op(
			http.MethodPost,
			"/v1/accounts/{id}/invite",
			"invite",
			"Create an invitation for a person to set a password",
		),
		a.invite,
	)
	register(
		a,
		h,
		op(
			http.MethodPost,
			"/v1/second-factor",
			"add-second-factor",
			"Start adding or replacing the caller's second factor",
		),
		a.addSecondFactor,
	)
	register(
		a,
		h,
		op(
			http.MethodPost,
			"/v1/second-factor/confirm",
			"confirm-second-factor",
			"Confirm the new second factor with one of its codes",
		),
		a.confirmSecondFactor,
	)
	register(
		a,
		h,
		op(
			http.MethodPost,
			"/v1/second-factor/recovery-codes",
			"renew-recovery-codes",
			"Replace the caller's recovery codes",
		),
		a.renewRecovery,
	)
	register(
		a,
		h,
		op(http.MethodPost, "/v1/second-factor/remove", "remove-second-factor", "Remove the caller's second factor"),
		a.removeSecondFactor,
	)
	a.sessionRoutes(h)
}

// peopleOperation returns an operation that limits failed attempts.
func peopleOperation(method, path, id, summary string) huma.Operation {
	o := operation(peopleTag)(method, path, id, summary)
	o.Errors = append(o.Errors, http.StatusTooManyRequests)
	return o
}

// isSignIn reports whether a request needs no caller, because it signs a person in
// or redeems an invitation.
func isSignIn(r *http.Request) bool {
	path := r.URL.EscapedPath()
	return r.Method == http.MethodPost && (path == "/v1/session" || path == "/v1/password")
}

func (a *api) openSession(ctx context.Context, in *signInInput) (*signInOutput, error) {
	b := in.Body
	var opened signin.Opened
	var err error
	switch given := b.Login != "" || b.Password != "" || b.Code != ""; {
	case b.Token != "" && given:
		return nil, fieldError("token", "cannot be used together with login, password or code; send one or the other")
	case b.Token != "":
		opened, err = a.signIn.SignInToken(ctx, b.Token, addressFrom(ctx))
	default:
		opened, err = a.signIn.SignIn(
			ctx,
			signin.Attempt{Login: b.Login, Password: []byte(b.Password), Code: b.Code, Address: addressFrom(ctx)},
		)
	}
	if err != nil {
		return nil, err
	}
	out := &signInOutput{}
	out.Body.Secret, out.Body.Session = opened.Secret.Reveal(), showSession(opened.Session, "")
	return out, nil
}

func (a *api) setPassword(ctx context.Context, in *passwordInput) (*passwordOutput, error) {
	id, err := a.signIn.Redeem(ctx, in.Body.Invitation, []byte(in.Body.Password), addressFrom(ctx))
	if err != nil {
		return nil, err
	}
	out := &passwordOutput{}
	out.Body.Account = string(id)
	return out, nil
}

func (a *api) changePassword(ctx context.Context, in *changePasswordInput) (*doneOutput, error) {
	if err := a.signIn.ChangePassword(ctx, callerFrom(ctx), []byte(in.Body.Old), []byte(in.Body.New)); err != nil {
		return nil, err
	}
	return newDoneOutput(), nil
}

func (a *api) invite(ctx context.Context, in *inviteInput) (*inviteOutput, error) {
	made, err := a.signIn.Invite(ctx, callerFrom(ctx), in.ID, in.Body != nil && in.Body.Reset)
	if err != nil {
		return nil, locatedAt(accountInPath, err)
	}
	out := &inviteOutput{}
	out.Body.Account, out.Body.Invitation, out.Body.ExpiresAt = string(made.Account), made.Secret.Reveal(), made.Expires
	return out, nil
}

func (a *api) addSecondFactor(ctx context.Context, in *optionalCodeInput) (*enrolmentOutput, error) {
	made, err := a.signIn.AddSecondFactor(ctx, callerFrom(ctx), in.code())
	if err != nil {
		return nil, err
	}
	out := &enrolmentOutput{}
	out.Body.Secret, out.Body.URI = made.Secret, made.URI
	return out, nil
}

func (a *api) confirmSecondFactor(ctx context.Context, in *codeInput) (*recoveryOutput, error) {
	return showRecoveryCodes(a.signIn.Confirm(ctx, callerFrom(ctx), in.Body.Code))
}

func (a *api) renewRecovery(ctx context.Context, in *optionalCodeInput) (*recoveryOutput, error) {
	return showRecoveryCodes(a.signIn.RenewRecovery(ctx, callerFrom(ctx), in.code()))
}

func showRecoveryCodes(codes []string, err error) (*recoveryOutput, error) {
	if err != nil {
		return nil, err
	}
	out := &recoveryOutput{}
	out.Body.Codes = codes
	return out, nil
}

func (a *api) removeSecondFactor(ctx context.Context, in *codeInput) (*doneOutput, error) {
	if err := a.signIn.RemoveSecondFactor(ctx, callerFrom(ctx), in.Body.Code); err != nil {
		return nil, err
	}
	return newDoneOutput(), nil
}
