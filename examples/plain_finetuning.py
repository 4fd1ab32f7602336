"""Plain PyTorch: further training with SimSiam's loss and Q-Score, on the bundled images, in a minute."""

import torch
from torch import nn
from torchvision.transforms import v2

import qscore_fast as qf
from qscore_fast.demo.fashion_mnist import read_idx

torch.manual_seed(0)
encoder = qf.load_encoder("demo", device="cpu")
images = torch.from_numpy(read_idx("discover", "images-idx3")[:1024].copy())[:, None]

# D: the discriminative features of the encoder as it is.
h = torch.cat([encoder(encoder.preprocess.normalise(batch)) for batch in images.split(128)])
features = qf.discriminative_features(qf.FeatureCensus(encoder.num_features).update(h))

backbone, r = encoder.module.requires_grad_(True), encoder.num_features
projector = nn.Sequential(nn.Linear(r, r), nn.BatchNorm1d(r), nn.ReLU(), nn.Linear(r, r))
predictor = nn.Sequential(
    nn.Linear(r, r // 4), nn.BatchNorm1d(r // 4), nn.ReLU(), nn.Linear(r // 4, r)
)
model = nn.ModuleList([backbone, projector, predictor]).train()
optimiser = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
regulariser = qf.QScoreLoss(features, lambda1=1e-1, lambda2=1e-4)
augment = v2.Compose(
    [v2.RandomResizedCrop(28, (0.5, 1), antialias=True), v2.RandomHorizontalFlip()]
)
cosine = nn.CosineSimilarity()

for step, batch in enumerate(images[torch.randperm(len(images))].split(32)):
    pixels = [torch.stack([augment(image) for image in batch]) for _ in range(2)]
    views = [encoder.preprocess.normalise(view) for view in pixels]
    h = backbone(torch.cat(views))  # both views: (2N, r)
    z = projector(h)
    (z1, z2), (p1, p2) = z.detach().chunk(2), predictor(z).chunk(2)
    ssl = -(cosine(p1, z2).mean() + cosine(p2, z1).mean()) / 2
    loss = ssl + regulariser(h)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    if step % 4 == 0:
        q = qf.q_score(h.detach(), features).mean()
        print(f"step {step:3}  ssl {ssl:.3f}  regulariser {loss - ssl:.4f}  mean Q {q:.4f}")
