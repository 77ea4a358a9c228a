"""What scipy's adaptive solvers need on the probability flow of the mixtures in this folder, one sample at a time.

Reads xT, times and the mixture of each pfode_*.npz beside it, integrates dx/dt = f x - g2/2 score with solve_ivp
(method RK45 and RK23, rtol = atol), and writes scipy_counts.npz: NAME__METHOD_TOL__nfev (int64) and __x.
Run: python scipy_counts.py (numpy 2, scipy 1.17).
"""
import os
import numpy as np
from scipy.integrate import solve_ivp

HERE = os.path.dirname(os.path.abspath(__file__))
B0, B1, S0, S1 = 0.1, 20.0, 0.01, 50.0


def coefficients(name, t):
    """alpha, sigma, f, g^2."""
    integral = t * (B0 + 0.5 * t * (B1 - B0))
    beta, a = B0 + t * (B1 - B0), np.exp(-0.5 * integral)
    if name == "vp":
        return a, np.sqrt(-np.expm1(-integral)), -0.5 * beta, beta
    if name == "subvp":
        return a, -np.expm1(-integral), -0.5 * beta, -beta * np.expm1(-2.0 * integral)
    if name == "ve":
        s = S0 * (S1 / S0) ** t
        return 1.0, s, 0.0, 2.0 * np.log(S1 / S0) * s * s
    return 1.0, t, 0.0, 2.0 * t  # edm


def score(x, a, s, w, mu, cov):
    inverse = np.linalg.inv(a * a * cov + s * s * np.eye(len(x)))
    d = x - a * mu
    pull = np.einsum("kij,kj->ki", inverse, d)
    logs = np.log(w) - 0.5 * np.sum(d * pull, 1) + 0.5 * np.linalg.slogdet(inverse)[1]
    r = np.exp(logs - logs.max())
    return -(r[:, None] * pull).sum(0) / r.sum()


def main():
    out = {}
    for name in ["vp", "subvp", "ve", "edm"]:
        for data in ["gmm8", "ani4"]:
            z = np.load(os.path.join(HERE, f"pfode_{name}_{data}.npz"))
            w, mu, cov, (start, stop) = z["w"], z["mu"], z["cov"], z["times"]

            def flow(t, x):
                a, s, f, g2 = coefficients(name, t)
                return f * x - 0.5 * g2 * score(x, a, s, w, mu, cov)

            for method in ["RK45", "RK23"]:
                for tol in ["1e-3", "1e-5"]:
                    runs = [solve_ivp(flow, (start, stop), x, method=method, rtol=float(tol), atol=float(tol)) for x in z["xT"]]
                    key = f"{name}_{data}__{method}_{tol}__"
                    out[key + "nfev"] = np.array([r.nfev for r in runs], np.int64)
                    out[key + "x"] = np.array([r.y[:, -1] for r in runs])
                    print(key, out[key + "nfev"].tolist())
    np.savez(os.path.join(HERE, "scipy_counts.npz"), **out)


main()
