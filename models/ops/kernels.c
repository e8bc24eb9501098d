/* The widened blocks of the cheap networks in training, on a CPU: what stands between a block's input and its 1x1
 * projection. build.py compiles this file and passes its constants; widen.py and activated_conv.py call it.
 *
 *     z = depthwise(activation(x)), `times` filters for each channel       widen, widen_backward
 *     y = activation((z - centre) scale + shift)                          activate, activate_backward
 *
 * The first never repeats the map and never joins copies; it takes the batch norm's moments while a row of z is at hand.
 * The second is the batch norm, and a squeeze-excite's gates, as one scale and one shift for each image and channel.
 *
 * All arrays are channels last, C = channels of the input, E = times * C of the widened map, C a multiple of LANES. Each
 * thread takes a stretch of the images. Within a thread a map lies in blocks of LANES channels, with its border of
 * padding: map[block][row][column][LANES].
 */
#include <stdint.h>
#include <string.h>

#ifndef REAL
#define REAL float
#endif
/* LANES: channels taken at a time; 8 are two AVX2 registers of doubles, one of floats. NONE, RELU, HARDSWISH: numbers of
 * the activations. */
#define INLINE static inline __attribute__((always_inline))
#define STRETCHES _Pragma("omp parallel for num_threads(threads) schedule(static)") \
    for (int64_t thread = 0; thread < threads; thread++)
#define IMAGES(images) (int64_t n = images * thread / threads; n < images * (thread + 1) / threads; n++)

typedef REAL real;
typedef real vector __attribute__((vector_size(LANES * sizeof(real)), aligned(sizeof(real))));
typedef __typeof__((vector){0} < (vector){0}) mask;

typedef struct {
    int64_t images, channels, times, height, width, kernel, stride, padding, out_height, out_width, activation;
} Shape;

int64_t shape_size(void) { return sizeof(Shape); }

INLINE vector load(const real *p) { return *(const vector *)p; }
INLINE void store(real *p, vector v) { *(vector *)p = v; }
INLINE void add(real *p, vector v) { store(p, load(p) + v); }
INLINE vector where(mask m, vector a, vector b) { return (vector)((m & (mask)a) | (~m & (mask)b)); }

/* NaN is passed through, as in torch: both comparisons are false for NaN. */
INLINE vector activated(int64_t kind, vector x) {
    const vector zero = {0};
    if (kind == NONE) return x;
    if (kind == RELU) return where(x <= zero, zero, x);
    vector t = x + 3;
    t = where(t < 0, zero, t);
    return x * where(t > 6, zero + 6, t) * ((real)1 / 6);
}

/* The derivative of activated(kind, x). */
INLINE vector derivative(int64_t kind, vector x) {
    const vector zero = {0};
    if (kind == NONE) return zero + 1;
    if (kind == RELU) return where(x <= zero, zero, zero + 1);
    vector t = where(x < -3, zero, x * ((real)1 / 3) + (real)0.5);
    return where(x > 3, zero + 1, t);
}

/* The offset of pixel (i, j) of channels c to c + LANES in a map that has `area` pixels with its border. */
INLINE int64_t inside(const Shape *s, int64_t area, int64_t i, int64_t j, int64_t c) {
    return c * area + ((i + s->padding) * (s->width + 2 * s->padding) + j + s->padding) * LANES;
}

INLINE int64_t bordered_area(const Shape *s) { return (s->height + 2 * s->padding) * (s->width + 2 * s->padding); }

/* Writes the activated image into map, whose border it does not touch. */
static void lay_out(const Shape *s, const real *image, real *map) {
    for (int64_t i = 0; i < s->height; i++)
        for (int64_t j = 0; j < s->width; j++)
            for (int64_t c = 0; c < s->channels; c += LANES, image += LANES)
                store(map + inside(s, bordered_area(s), i, j, c), activated(s->activation, load(image)));
}

/* Computes LANES channels of P neighbouring pixels in a row of z. map: the upper left corner of the first one's window. */
INLINE void convolve(int K, int P, const Shape *s, const real *map, const real *taps, int64_t E, real *out) {
    int64_t columns = s->width + 2 * s->padding;
    vector sum[8] = {0};
    for (int a = 0; a < K; a++)
        for (int b = 0; b < K; b++) {
            vector tap = load(taps + (a * K + b) * E);
            for (int p = 0; p < P; p++) sum[p] += tap * load(map + (a * columns + b + p * s->stride) * LANES);
        }
    for (int p = 0; p < P; p++) store(out + p * E, sum[p]);
}

INLINE void convolve_row(int K, const Shape *s, const real *map, const real *taps, real *out) {
    int64_t C = s->channels, E = C * s->times;
    for (int64_t c = 0; c < C; c += LANES)
        for (int64_t e = c; e < E; e += C) {
            const real *from = map + c * bordered_area(s);
            int64_t j = 0, step = s->stride * LANES;
            for (; j + 8 <= s->out_width; j += 8) convolve(K, 8, s, from + j * step, taps + e, E, out + j * E + e);
            for (; j + 4 <= s->out_width; j += 4) convolve(K, 4, s, from + j * step, taps + e, E, out + j * E + e);
            for (; j < s->out_width; j++) convolve(K, 1, s, from + j * step, taps + e, E, out + j * E + e);
        }
}

/* Adds up the distances of a row's pixels from the image's first pixel, and the squares of these distances. */
static void add_moments(int64_t pixels, int64_t E, const real *row, const real *first, real *sum, real *squares) {
    for (int64_t e = 0; e < E; e += LANES) {
        vector total = {0}, square = {0}, origin = load(first + e);
        for (int64_t j = 0; j < pixels; j++) {
            vector distance = load(row + j * E + e) - origin;
            total += distance;
            square += distance * distance;
        }
        add(sum + e, total);
        add(squares + e, square);
    }
}

/* x: images x height x width x C; taps: kernel^2 x E; z: images x out_height x out_width x E; means, squares: images x E,
 * the mean of each image's map and the sum of squared distances from it; scratch: threads x (map with border). */
void widen(const Shape *s, const real *x, const real *taps, real *z, real *means, real *squares, real *scratch,
           int64_t threads) {
    int64_t C = s->channels, E = C * s->times, area = bordered_area(s), pixels = s->out_height * s->out_width;
    STRETCHES {
        real *map = scratch + thread * area * C;
        memset(map, 0, area * C * sizeof(real));
        for IMAGES(s->images) {
            real *first = z + n * pixels * E, *sum = means + n * E, *square = squares + n * E;
            memset(sum, 0, E * sizeof(real));
            memset(square, 0, E * sizeof(real));
            lay_out(s, x + n * s->height * s->width * C, map);
            for (int64_t i = 0; i < s->out_height; i++) {
                const real *from = map + i * s->stride * (s->width + 2 * s->padding) * LANES;
                real *row = first + i * s->out_width * E;
                if (s->kernel == 3) convolve_row(3, s, from, taps, row);
                else convolve_row(5, s, from, taps, row);
                add_moments(s->out_width, E, row, first, sum, square);
            }
            for (int64_t e = 0; e < E; e += LANES) {
                vector total = load(sum + e), mean = total / (real)pixels;
                store(square + e, load(square + e) - mean * total);
                store(sum + e, load(first + e) + mean);
            }
        }
    }
}

/* Adds the contribution of one block of z's gradient to the gradients of the taps (own) and of the map (back). */
INLINE void block_backward(int K, const Shape *s, const real *map, const real *gradient, const real *taps, real *own,
                           real *back) {
    int64_t E = s->channels * s->times, columns = s->width + 2 * s->padding;
    for (int a = 0; a < K; a++) {
        vector sum[5] = {0}, tap[5];
        for (int b = 0; b < K; b++) tap[b] = load(taps + (a * K + b) * E);
        const real *g = gradient;
        for (int64_t i = 0; i < s->out_height; i++)
            for (int64_t j = 0; j < s->out_width; j++, g += LANES) {
                int64_t at = ((i * s->stride + a) * columns + j * s->stride) * LANES;
                for (int b = 0; b < K; b++) {
                    sum[b] += load(g) * load(map + at + b * LANES);
                    add(back + at + b * LANES, load(g) * tap[b]);
                }
            }
        for (int b = 0; b < K; b++) add(own + (a * K + b) * E, sum[b]);
    }
}

/* The gradients of x and of the taps, from that of z, which is gradient + factor z + offset.
 * factor: E; offset: images x E; taps_gradients: threads x kernel^2 x E, to be added up by the caller;
 * scratch: threads x (two maps with border, and one image's z). */
void widen_backward(const Shape *s, const real *x, const real *taps, const real *z, const real *gradient,
                    const real *factor, const real *offset, real *x_gradient, real *taps_gradients, real *scratch,
                    int64_t threads) {
    int64_t C = s->channels, E = C * s->times, area = bordered_area(s), pixels = s->out_height * s->out_width;
    STRETCHES {
        real *map = scratch + thread * (2 * area * C + pixels * E), *back = map + area * C, *whole = back + area * C;
        real *own = taps_gradients + thread * s->kernel * s->kernel * E;
        memset(map, 0, area * C * sizeof(real));
        memset(own, 0, s->kernel * s->kernel * E * sizeof(real));
        for IMAGES(s->images) {
            const real *image = x + n * s->height * s->width * C;
            lay_out(s, image, map);
            memset(back, 0, area * C * sizeof(real));
            for (int64_t p = 0, at = n * pixels * E; p < pixels; p++)
                for (int64_t e = 0; e < E; e += LANES, at += LANES)
                    store(whole + e * pixels + p * LANES,
                          load(gradient + at) + load(factor + e) * load(z + at) + load(offset + n * E + e));
            for (int64_t c = 0; c < C; c += LANES)
                for (int64_t e = c; e < E; e += C) {
                    const real *block = whole + e * pixels;
                    if (s->kernel == 3) block_backward(3, s, map + c * area, block, taps + e, own + e, back + c * area);
                    else block_backward(5, s, map + c * area, block, taps + e, own + e, back + c * area);
                }
            real *to = x_gradient + n * s->height * s->width * C;
            for (int64_t i = 0; i < s->height; i++)
                for (int64_t j = 0; j < s->width; j++)
                    for (int64_t c = 0; c < C; c += LANES, image += LANES, to += LANES)
                        store(to, load(back + inside(s, area, i, j, c)) * derivative(s->activation, load(image)));
        }
    }
}

/* z, y: images x pixels x E; centre: E; scale, shift: images x E. */
void activate(int64_t images, int64_t pixels, int64_t E, int64_t kind, const real *z, const real *centre,
              const real *scale, const real *shift, real *y, int64_t threads) {
    STRETCHES {
        for IMAGES(images)
            for (int64_t p = 0, at = n * pixels * E; p < pixels; p++)
                for (int64_t e = 0; e < E; e += LANES, at += LANES) {
                    vector distance = load(z + at) - load(centre + e);
                    vector u = distance * load(scale + n * E + e) + load(shift + n * E + e);
                    store(y + at, activated(kind, u));
                }
    }
}

/* Overwrites `gradient` in place, from d/dy to d/dz. The gradients of scale and shift: images x E. */
void activate_backward(int64_t images, int64_t pixels, int64_t E, int64_t kind, const real *z, const real *centre,
                       const real *scale, const real *shift, real *gradient, real *scale_gradient,
                       real *shift_gradient, int64_t threads) {
    STRETCHES {
        for IMAGES(images) {
            real *of_scale = scale_gradient + n * E, *of_shift = shift_gradient + n * E;
            memset(of_scale, 0, E * sizeof(real));
            memset(of_shift, 0, E * sizeof(real));
            for (int64_t p = 0, at = n * pixels * E; p < pixels; p++)
                for (int64_t e = 0; e < E; e += LANES, at += LANES) {
                    vector distance = load(z + at) - load(centre + e), factor = load(scale + n * E + e);
                    vector g = load(gradient + at) * derivative(kind, distance * factor + load(shift + n * E + e));
                    store(gradient + at, g * factor);
                    add(of_scale + e, g * distance);
                    add(of_shift + e, g);
                }
        }
    }
}
